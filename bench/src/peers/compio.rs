//! compio: a runtime a thread, nothing shared, on io_uring where the kernel has it.

use std::net::SocketAddr;

use compio::BufResult;
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::Runtime;

use super::cores::{self, Server};
use super::version;
use crate::hello::{Hello, READ_BYTES};
use crate::load::ECHO_BYTES;
use crate::scenarios::Service;

/// It.
#[derive(Debug)]
pub struct Compio;

impl Server for Compio {
    const NAME: &'static str = "compio";

    fn settings(procs: usize) -> String {
        let version = version("compio");
        let driver = match Runtime::new().map(|runtime| runtime.driver_type().is_iouring()) {
            Ok(true) => "io_uring",
            _ => "epoll",
        };
        format!(
            "compio {version} on {driver}, {procs} runtimes with SO_REUSEPORT, other settings default; HTTP by hand (no hyper)"
        )
    }

    fn start(procs: usize, address: SocketAddr, service: Service) {
        cores::threads(procs, move |listening| {
            let runtime = Runtime::new().expect("compio starts");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(cores::listener(address)).expect("compio takes it");
                // Who waits for it lives until all threads have said so.
                let _ = listening.send(());
                loop {
                    let (stream, _) = listener.accept().await.expect("accept works");
                    stream.set_nodelay(true).expect("it is TCP");
                    cores::seen();
                    if service == Service::Echo {
                        compio::runtime::spawn(echo(stream)).detach();
                    } else {
                        compio::runtime::spawn(hello(stream)).detach();
                    }
                }
            });
        });
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buf = Vec::with_capacity(ECHO_BYTES);
    loop {
        let BufResult(read, back) = stream.read(buf).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        let BufResult(written, back) = stream.write_all(back).await;
        if written.is_err() {
            return;
        }
        buf = back;
        buf.clear();
    }
}

async fn hello(mut stream: TcpStream) {
    let (mut buf, mut answers, mut hello) = (Vec::with_capacity(READ_BYTES), Vec::new(), Hello::default());
    loop {
        let BufResult(read, back) = stream.read(buf).await;
        if !matches!(read, Ok(1..)) || hello.answer(&back, &mut answers).is_err() {
            return;
        }
        let BufResult(written, back_answers) = stream.write_all(answers).await;
        if written.is_err() {
            return;
        }
        (buf, answers) = (back, back_answers);
        buf.clear();
        answers.clear();
    }
}
