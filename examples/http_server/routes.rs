//! What the server answers.
//!
//! | request           | answer                                              |
//! |-------------------|-----------------------------------------------------|
//! | `GET /`           | hello                                               |
//! | `POST /echo`      | the body of the request, as it comes                |
//! | `GET /sleep?ms=N` | after N milliseconds                                |
//! | `GET /metrics`    | the scheduler's counters, a line `name value` each  |

use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

type Body = Either<Full<Bytes>, Incoming>;

pub async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(match (request.uri().path(), request.method()) {
        ("/", &Method::GET | &Method::HEAD) => text(StatusCode::OK, "Hello, World!\n"),
        ("/sleep", &Method::GET | &Method::HEAD) => sleep(request.uri().query()).await,
        ("/metrics", &Method::GET | &Method::HEAD) => metrics(),
        ("/echo", &Method::POST) => Response::new(Either::Right(request.into_body())),
        ("/" | "/sleep" | "/metrics", _) => allow("GET, HEAD"),
        ("/echo", _) => allow("POST"),
        _ => text(StatusCode::NOT_FOUND, "There is nothing here.\n"),
    })
}

async fn sleep(query: Option<&str>) -> Response<Body> {
    let ms = query.into_iter().flat_map(|query| query.split('&')).find_map(|pair| pair.strip_prefix("ms="));
    match ms.and_then(|ms| ms.parse().ok()) {
        Some(ms) => {
            gmp::time::sleep(Duration::from_millis(ms)).await;
            text(StatusCode::OK, format!("Slept {ms} ms.\n"))
        }
        None => text(StatusCode::BAD_REQUEST, "How long? /sleep?ms=100 sleeps 100 milliseconds.\n"),
    }
}

fn metrics() -> Response<Body> {
    let mut lines = String::new();
    for (name, value) in gmp::Handle::current().metrics().entries() {
        writeln!(lines, "{name} {value}").expect("a string takes everything");
    }
    text(StatusCode::OK, lines)
}

fn allow(methods: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("Only {methods} here.\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(text.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
