//! Addresses for servers of tests that have to know theirs before they listen.
//!
//! They lie below those that Linux gives to connections and to listeners without a wish (32768 and more),
//! so that none of these takes one in the time a server needs to start; two calls in one process never
//! give the same.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;
/// Far enough from each other for processes that run side by side.
const PER_PROCESS: u32 = 97;

/// An address of this machine at which nobody listens.
pub fn free_address() -> SocketAddr {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        let number = std::process::id().wrapping_mul(PER_PROCESS).wrapping_add(given);
        let port = u16::try_from(FIRST + number % COUNT).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        // A listener would be inherited by a program that another thread starts at this moment, and answer
        // in the place of the server until that program is loaded.
        if TcpStream::connect(address).is_err() {
            return address;
        }
    }
}
