//! monoio: a runtime a thread, nothing shared, on io_uring where the kernel has it.

use std::net::SocketAddr;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{ListenerOpts, TcpListener, TcpStream};
use monoio::{FusionDriver, RuntimeBuilder};

use super::cores::{self, Server};
use super::version;
use crate::hello::{Hello, READ_BYTES};
use crate::load::ECHO_BYTES;
use crate::scenarios::Service;

/// It.
#[derive(Debug)]
pub struct Monoio;

impl Server for Monoio {
    const NAME: &'static str = "monoio";

    fn settings(procs: usize) -> String {
        let driver = if monoio::utils::detect_uring() { "io_uring" } else { "epoll" };
        let version = version("monoio");
        format!(
            "monoio {version} on {driver}, {procs} runtimes with SO_REUSEPORT, other settings default; HTTP by hand (no hyper)"
        )
    }

    fn start(procs: usize, address: SocketAddr, service: Service) {
        cores::threads(procs, move |listening| {
            let mut runtime = RuntimeBuilder::<FusionDriver>::new().build().expect("monoio starts");
            runtime.block_on(async move {
                let options = ListenerOpts::new().reuse_port(true);
                let listener = TcpListener::bind_with_config(address, &options).expect("the port is shared");
                // Who waits for it lives until all threads have said so.
                let _ = listening.send(());
                loop {
                    let (stream, _) = listener.accept().await.expect("accept works");
                    stream.set_nodelay(true).expect("it is TCP");
                    cores::seen();
                    if service == Service::Echo {
                        monoio::spawn(echo(stream));
                    } else {
                        monoio::spawn(hello(stream));
                    }
                }
            });
        });
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buf = Vec::with_capacity(ECHO_BYTES);
    loop {
        let (read, back) = stream.read(buf).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        let (written, back) = stream.write_all(back).await;
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
        let (read, back) = stream.read(buf).await;
        if !matches!(read, Ok(1..)) || hello.answer(&back, &mut answers).is_err() {
            return;
        }
        let (written, back_answers) = stream.write_all(answers).await;
        if written.is_err() {
            return;
        }
        (buf, answers) = (back, back_answers);
        buf.clear();
        answers.clear();
    }
}
