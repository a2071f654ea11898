//! An HTTP/1.1 client of a few lines, over a socket of std: what goes over the wire is what the test wrote.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::process::DEADLINE;

pub struct Client {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
}

/// What the server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: Vec<String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a limit");
        stream.set_write_timeout(Some(DEADLINE)).expect("a limit");
        let reader = BufReader::new(stream.try_clone().expect("a second handle"));
        Client { stream, reader }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server reads");
    }

    pub fn get(&mut self, target: &str) -> Answer {
        self.request("GET", target)
    }

    /// Sends a request without a body and reads the answer.
    pub fn request(&mut self, method: &str, target: &str) -> Answer {
        self.send(request(method, target));
        self.answer()
    }

    /// Reads an answer.
    pub fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        let mut body = Vec::new();
        self.body(&answer, |bytes| body.extend_from_slice(bytes));
        answer.body = body;
        answer
    }

    /// Reads an answer up to its body.
    pub fn head(&mut self) -> Answer {
        let first = self.line();
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {first:?}"));
        let mut head = Vec::new();
        loop {
            match self.line() {
                line if line.is_empty() => return Answer { status, head, body: Vec::new() },
                line => head.push(line),
            }
        }
    }

    /// Reads the body that belongs to `head`, piece by piece.
    pub fn body(&mut self, head: &Answer, mut take: impl FnMut(&[u8])) {
        if let Some(length) = head.header("content-length") {
            return self.exactly(length.parse().expect("a number"), &mut take);
        }
        assert_eq!(head.header("transfer-encoding"), Some("chunked"));
        loop {
            let size = self.line();
            let size = usize::from_str_radix(&size, 16).unwrap_or_else(|e| panic!("chunk size {size:?}: {e}"));
            self.exactly(size, &mut take);
            assert_eq!(self.line(), "");
            if size == 0 {
                return;
            }
        }
    }

    /// Reads so many bytes, piece by piece.
    pub fn exactly(&mut self, mut left: usize, take: &mut impl FnMut(&[u8])) {
        while left > 0 {
            let bytes = self.reader.fill_buf().expect("the server answers in time");
            assert!(!bytes.is_empty(), "the connection ended, {left} bytes short");
            let n = bytes.len().min(left);
            take(&bytes[..n]);
            self.reader.consume(n);
            left -= n;
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("the server answers in time");
        assert!(line.ends_with("\r\n"), "the connection ended at {line:?}");
        line.truncate(line.len() - 2);
        line
    }

    /// Reads to the end of the connection. A reset is an end too.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("no end of the connection: {error}"),
            _ => rest,
        }
    }

    /// Whether an answer has begun to come.
    pub fn is_answered(&self) -> bool {
        self.stream.set_nonblocking(true).expect("a mode");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a mode");
        match peeked {
            Ok(n) => n > 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("the connection broke: {error}"),
        }
    }

    /// Whether the server has received everything that was sent. On the loopback what was sent is in its queue at once.
    pub fn is_received(&self) -> bool {
        let key = |address: SocketAddr| format!(":{:04X} ", address.port());
        let (ours, theirs) = (self.stream.local_addr().unwrap(), self.stream.peer_addr().unwrap());
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the table of sockets");
        // "0: 0100007F:8C3D 0100007F:D2A4 01 00000000:00000012 …": the server's own end, then its peer's, state,
        // queues.
        let server_end = |line: &&str| {
            let ends = line.split_whitespace().skip(1).take(2).map(|end| format!("{end} "));
            ends.zip([key(theirs), key(ours)]).all(|(end, key)| end.ends_with(&key))
        };
        let line = table.lines().find(server_end).expect("the server's end is there");
        let queues = line.split_whitespace().nth(4).expect("the queues");
        queues.ends_with(":00000000")
    }
}

/// A request without a body.
pub fn request(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n\r\n")
}
