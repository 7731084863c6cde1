//! What is left of a runner for those who refer to what it keeps: its socket, to say that something is not
//! needed any more, and its memory, to read it.
//!
//! Nothing here waits: a word that finds no room in the socket, or a frame on its way, goes with the next
//! frame.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::socket::Socket;
use crate::data::kept::Keeper;

/// Kind of a frame that says what is not needed any more.
const RELEASE: u8 = 3;
/// Most objects that one such frame names.
const RELEASED_MAX: usize = 512;

/// The process of a runner as others see it.
#[derive(Debug)]
pub(super) struct Link {
    pub pid: u32,
    pub socket: Socket,
    /// Held while a frame is on its way.
    sending: Mutex<()>,
    /// What is not needed any more and was not said yet.
    released: Mutex<Vec<u64>>,
    /// Whether the process was waited for: its number may be that of another then.
    is_reaped: Mutex<bool>,
    kept_bytes: AtomicU64,
}

impl Link {
    pub fn new(pid: u32, socket: Socket) -> Self {
        let (sending, released, is_reaped) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { pid, socket, sending, released, is_reaped, kept_bytes: AtomicU64::new(0) }
    }

    /// Bytes of what the process keeps.
    pub fn kept_bytes(&self) -> u64 {
        self.kept_bytes.load(Ordering::Relaxed)
    }

    pub fn keeps(&self, bytes: u64) {
        self.kept_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Waits for the process by `wait`, which tells whether it has ended; nobody reads its memory meanwhile,
    /// or afterwards where it has.
    pub fn reap<T>(&self, wait: impl FnOnce() -> io::Result<Option<T>>) -> io::Result<Option<T>> {
        let mut is_reaped = lock(&self.is_reaped);
        let status = wait()?;
        *is_reaped |= status.is_some();
        Ok(status)
    }

    /// Says what was released and nobody could say before; no other frame is sent until the guard is dropped.
    pub fn begin_frame(&self) -> MutexGuard<'_, ()> {
        let sending = lock(&self.sending);
        self.tell();
        sending
    }

    /// To be called by whoever may send.
    fn tell(&self) {
        let mut released = lock(&self.released);
        let count = released.len().min(RELEASED_MAX);
        if count == 0 {
            return;
        }
        let mut frame = Vec::with_capacity(12 + 8 * count);
        frame.extend((8 + 8 * count as u32).to_le_bytes());
        frame.extend([RELEASE, 0, 0, 0, 0, 0, 0, 0]);
        released[..count].iter().for_each(|number| frame.extend(number.to_le_bytes()));
        // A stream socket takes so few bytes whole or not at all.
        if self.socket.send_at_once(&frame).is_ok_and(|sent| sent == frame.len()) {
            released.drain(..count);
        }
    }
}

impl Keeper for Link {
    fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()> {
        let is_reaped = lock(&self.is_reaped);
        let ended = || io::Error::other("the process that had the object in its memory has ended");
        if *is_reaped {
            return Err(ended());
        }
        let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let there = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: buffer.len() };
        // SAFETY: the kernel writes at most the buffer, and checks the address in the other process, which is
        // the one meant: it is not reaped while the lock is held. Source: process_vm_readv(2).
        let got = unsafe {
            libc::process_vm_readv(self.pid as libc::pid_t, &raw const local, 1, &raw const there, 1, 0)
        };
        match usize::try_from(got) {
            Ok(got) if got == buffer.len() => Ok(()),
            Ok(_) => Err(ended()),
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ESRCH) => Err(ended()),
                error => Err(error),
            },
        }
    }

    fn release(&self, number: u64, bytes: u64) {
        self.kept_bytes.fetch_sub(bytes, Ordering::Relaxed);
        lock(&self.released).push(number);
        // Where a frame is on its way, whoever sends the next one says it.
        if let Ok(_sending) = self.sending.try_lock() {
            self.tell();
        }
    }
}

/// A panic elsewhere leaves a list and a flag, both valid at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
