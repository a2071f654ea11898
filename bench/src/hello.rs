//! An answer to HTTP/1.1 by hand: as little as a server can do that reads heads. `scenarios::http` runs it on every
//! peer, and the servers in `peers` that have no hyper run nothing else.
//!
//! 1. A request is `GET / HTTP/1.1` with fields and no body; another one is an error, and its connection ends.
//! 2. All requests that are there are answered in one piece, so that sixteen in a row cost one write.

use std::io::{self, ErrorKind};

/// Bytes that are read at once.
pub const READ_BYTES: usize = 4096;

const REQUEST_LINE: &[u8] = b"GET / HTTP/1.1\r\n";
const END: &[u8] = b"\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\ncontent-type: text/plain\r\n\r\nHello, World!";

/// What a connection keeps between two reads.
#[derive(Debug, Default)]
pub struct Hello {
    /// The beginning of a request whose end has not come.
    begun: Vec<u8>,
}

impl Hello {
    /// Takes what was read, and appends the answers to the requests that it completes.
    ///
    /// # Errors
    ///
    /// It is another request than the one that is answered, or too long a one.
    pub fn answer(&mut self, read: &[u8], answers: &mut Vec<u8>) -> io::Result<()> {
        if self.begun.is_empty() {
            let rest = answer_whole(read, answers)?;
            self.begun.extend_from_slice(rest);
        } else {
            self.begun.extend_from_slice(read);
            let rest = answer_whole(&self.begun, answers)?.len();
            self.begun.drain(..self.begun.len() - rest);
        }
        if self.begun.len() > READ_BYTES {
            return Err(ErrorKind::InvalidData.into());
        }
        Ok(())
    }
}

/// Answers whole requests, and gives what is left.
fn answer_whole<'a>(mut text: &'a [u8], answers: &mut Vec<u8>) -> io::Result<&'a [u8]> {
    while let Some(head) = text.windows(END.len()).position(|end| end == END) {
        if !text.starts_with(REQUEST_LINE) {
            return Err(ErrorKind::InvalidData.into());
        }
        answers.extend_from_slice(ANSWER);
        text = &text[head + END.len()..];
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    #[test]
    fn requests_in_a_row_are_answered_in_one_piece() {
        let mut answers = Vec::new();
        Hello::default().answer(&REQUEST.repeat(16), &mut answers).unwrap();
        assert_eq!(answers, ANSWER.repeat(16));
    }

    #[test]
    fn a_request_may_come_in_any_pieces() {
        for cut in 1..2 * REQUEST.len() {
            let (mut hello, mut answers) = (Hello::default(), Vec::new());
            let text = REQUEST.repeat(2);
            hello.answer(&text[..cut], &mut answers).unwrap();
            assert_eq!(answers.len(), cut / REQUEST.len() * ANSWER.len());
            hello.answer(&text[cut..], &mut answers).unwrap();
            assert_eq!(answers, ANSWER.repeat(2), "{cut}");
            assert!(hello.begun.is_empty());
        }
    }

    #[test]
    fn what_is_not_answered_is_an_error() {
        let mut answers = Vec::new();
        assert!(Hello::default().answer(b"POST / HTTP/1.1\r\n\r\n", &mut answers).is_err());
        assert!(Hello::default().answer(&[b'x'; READ_BYTES + 1], &mut answers).is_err());
        assert!(answers.is_empty());
    }

    #[test]
    fn the_answer_says_how_long_it_is() {
        let text = std::str::from_utf8(ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())));
    }
}
