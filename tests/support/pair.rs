//! A connection to wait for.

use gmp::net::{TcpListener, TcpStream};

/// A connection: gmp's end, and a plain one.
pub async fn pair() -> (TcpStream, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().await.unwrap().0, plain)
}
