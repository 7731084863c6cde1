//! The protocol of Redis (RESP2), as much of it as writing needs.
//!
//! Source: the Redis protocol specification.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// A connection to Redis.
pub struct Redis {
    reader: BufReader<TcpStream>,
    command: Vec<u8>,
}

impl Redis {
    /// Connects to `address`, a host with a port.
    pub fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("Redis listens");
        stream.set_nodelay(true).expect("TCP");
        Self { reader: BufReader::new(stream), command: Vec::new() }
    }

    /// Sends one command, whose answer is one line, and waits for it.
    pub fn ask(&mut self, parts: &[&[u8]]) {
        self.send(parts);
        self.answer();
    }

    /// Sends many commands without waiting in between, then reads their answers.
    pub fn ask_all<'a>(&mut self, commands: impl Iterator<Item = [&'a [u8]; 3]>) {
        let mut open = 0;
        for command in commands {
            self.send(&command);
            open += 1;
        }
        (0..open).for_each(|_| self.answer());
    }

    fn send(&mut self, parts: &[&[u8]]) {
        self.command.clear();
        write!(self.command, "*{}\r\n", parts.len()).expect("memory");
        for part in parts {
            write!(self.command, "${}\r\n", part.len()).expect("memory");
            self.command.extend_from_slice(part);
            self.command.extend_from_slice(b"\r\n");
        }
        self.reader.get_mut().write_all(&self.command).expect("Redis reads");
    }

    fn answer(&mut self) {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("Redis answers");
        assert!(line.starts_with('+') || line.starts_with(':'), "Redis refused: {line}");
    }
}
