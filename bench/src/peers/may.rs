//! may: stackful coroutines that steal, with a server for HTTP of its own, may_minihttp.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use may::net::TcpListener;
use may_minihttp::{HttpServer, HttpService, Request, Response};

use super::cores::{self, Server};
use super::version;
use crate::load::ECHO_BYTES;
use crate::scenarios::Service;

/// It.
#[derive(Debug)]
pub struct May;

impl Server for May {
    const NAME: &'static str = "may";

    fn settings(procs: usize) -> String {
        format!(
            "may {}, set_workers = {procs}, not pinned where the generator shares their CPUs, other settings default; \
             may_minihttp {} for HTTP (no hyper)",
            version("may"),
            version("may_minihttp")
        )
    }

    fn start(procs: usize, address: SocketAddr, service: Service) {
        may::config().set_workers(procs);
        may::config().set_worker_pin(procs < std::thread::available_parallelism().map_or(1, usize::from));
        if service == Service::Echo {
            let listener = TcpListener::bind(address).expect("the port is shared");
            may::go!(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.expect("accept works");
                    stream.set_nodelay(true).expect("it is TCP");
                    may::go!(move || {
                        let mut buf = [0; ECHO_BYTES];
                        while let Ok(n @ 1..) = stream.read(&mut buf) {
                            cores::seen();
                            if stream.write_all(&buf[..n]).is_err() {
                                return;
                            }
                        }
                    });
                }
            });
        } else {
            HttpServer(Greeter).start(address).expect("the port is shared");
        }
    }
}

#[derive(Clone)]
struct Greeter;

impl HttpService for Greeter {
    fn call(&mut self, _: Request, response: &mut Response) -> io::Result<()> {
        cores::seen();
        response.body("Hello, World!");
        Ok(())
    }
}
