//! No runtime: a thread a core, and on each a loop around `epoll_wait` that reads and writes where bytes have come.
//! What a runtime that uses epoll can reach, and none can pass where server and generator have a CPU each. Where they
//! share CPUs one that keeps to fewer threads may.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;

use super::cores::{self, Server};
use crate::hello::{Hello, READ_BYTES};
use crate::load::ECHO_BYTES;
use crate::scenarios::Service;

/// Events that are taken at once.
const EVENTS: usize = 256;

/// The loop.
#[derive(Debug)]
pub struct Raw;

impl Server for Raw {
    const NAME: &'static str = "raw-epoll";
    const CEILING: bool = true;

    fn settings(procs: usize) -> String {
        format!(
            "no runtime, the ceiling: {procs} threads with SO_REUSEPORT, epoll level-triggered, one recv and one send a request"
        )
    }

    fn start(procs: usize, address: SocketAddr, service: Service) {
        cores::threads(procs, move |listening| {
            serve(address, service, &listening).expect("epoll works");
        });
    }
}

struct Connection {
    socket: TcpStream,
    hello: Hello,
}

fn serve(address: SocketAddr, service: Service, listening: &mpsc::Sender<()>) -> io::Result<()> {
    let listener = cores::listener(address);
    listener.set_nonblocking(true)?;
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let at_listener = listener.as_raw_fd();
    let interest = epoll::EventFlags::IN;
    epoll::add(&poller, &listener, epoll::EventData::new_u64(at_listener as u64), interest)?;
    // The other threads' signals are theirs; who waits for them lives until all have come.
    let _ = listening.send(());
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = Vec::with_capacity(EVENTS);
    let mut answers = Vec::with_capacity(READ_BYTES);
    loop {
        events.clear();
        match epoll::wait(&poller, spare_capacity(&mut events), None) {
            Err(error) if error != rustix::io::Errno::INTR => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            let key = event.data.u64() as i32;
            if key == at_listener {
                match listener.accept() {
                    Ok((socket, _)) => {
                        cores::seen();
                        socket.set_nonblocking(true)?;
                        socket.set_nodelay(true)?;
                        let key = socket.as_raw_fd();
                        epoll::add(&poller, &socket, epoll::EventData::new_u64(key as u64), interest)?;
                        let place = key as usize;
                        connections.resize_with(connections.len().max(place + 1), || None);
                        connections[place] = Some(Connection { socket, hello: Hello::default() });
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
                continue;
            }
            let place = &mut connections[key as usize];
            let connection = place.as_mut().expect("it is there until it is closed");
            if !turn(connection, service, &mut answers) {
                // Closing takes it out of the poller.
                *place = None;
            }
        }
    }
}

/// Answers what has come; whether the connection goes on.
fn turn(connection: &mut Connection, service: Service, answers: &mut Vec<u8>) -> bool {
    match service {
        Service::Echo => {
            let mut buf = [0; ECHO_BYTES];
            match connection.socket.read(&mut buf) {
                Ok(0) => false,
                // Clients wait for the answer before they ask again, so it fits into the buffer of the socket.
                Ok(n) => connection.socket.write_all(&buf[..n]).is_ok(),
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            }
        }
        _ => {
            let mut buf = [0; READ_BYTES];
            match connection.socket.read(&mut buf) {
                Ok(0) => false,
                Ok(n) => {
                    answers.clear();
                    connection.hello.answer(&buf[..n], answers).is_ok() && connection.socket.write_all(answers).is_ok()
                }
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}
