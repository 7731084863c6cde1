//! The socket between an executor and a runner: a stream of bytes, with descriptors beside them.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Most descriptors that one message takes: SCM_MAX_FD of Linux.
pub(super) const DESCRIPTORS_MAX: usize = 253;
/// Room for the descriptors of a message: header and 253 numbers, aligned.
const ANCILLARY_WORDS: usize = 160;

/// This side of a pair.
#[derive(Debug)]
pub(super) struct Socket(UnixStream);

impl Socket {
    /// A pair: this side, which waits at most `look` for each of its calls, and the other one.
    pub fn pair(look: Duration) -> io::Result<(Self, OwnedFd)> {
        let (own, other) = UnixStream::pair()?;
        own.set_read_timeout(Some(look))?;
        own.set_write_timeout(Some(look))?;
        Ok((Self(own), other.into()))
    }

    /// Sends what there is room for; the descriptors go with its first byte.
    pub fn send(&self, bytes: &[u8], descriptors: &[RawFd]) -> io::Result<usize> {
        self.send_with(bytes, descriptors, libc::MSG_NOSIGNAL)
    }

    /// Sends what there is room for now.
    pub fn send_at_once(&self, bytes: &[u8]) -> io::Result<usize> {
        self.send_with(bytes, &[], libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
    }

    fn send_with(&self, bytes: &[u8], descriptors: &[RawFd], flags: libc::c_int) -> io::Result<usize> {
        let mut ancillary = [0_u64; ANCILLARY_WORDS];
        let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let descriptors = &descriptors[..descriptors.len().min(DESCRIPTORS_MAX)];
        let data_bytes = size_of_val(descriptors) as libc::c_uint;
        // SAFETY: the header points to live buffers of the sizes given; what is written of ancillary data
        // lies within its array, which is aligned for it.
        unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            if !descriptors.is_empty() {
                message.msg_control = ancillary.as_mut_ptr().cast();
                message.msg_controllen = libc::CMSG_SPACE(data_bytes) as _;
                let header = libc::CMSG_FIRSTHDR(&raw const message);
                (*header).cmsg_level = libc::SOL_SOCKET;
                (*header).cmsg_type = libc::SCM_RIGHTS;
                (*header).cmsg_len = libc::CMSG_LEN(data_bytes) as _;
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                std::ptr::copy_nonoverlapping(descriptors.as_ptr(), data, descriptors.len());
            }
            let sent = libc::sendmsg(self.0.as_raw_fd(), &raw const message, flags);
            usize::try_from(sent).map_err(|_| io::Error::last_os_error())
        }
    }

    /// Receives what is there, at least a byte, and the descriptors with it; 0 bytes when the other side is
    /// closed.
    pub fn receive(&self, buffer: &mut [u8], files: &mut Vec<File>) -> io::Result<usize> {
        let mut ancillary = [0_u64; ANCILLARY_WORDS];
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: as above; the kernel fills at most what the header says, and the descriptors that it gives
        // are new and nobody else's.
        unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            message.msg_control = ancillary.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&ancillary) as _;
            let got = libc::recvmsg(self.0.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC);
            let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
            let mut header = libc::CMSG_FIRSTHDR(&raw const message);
            while !header.is_null() {
                if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                    let data_bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                    let data = libc::CMSG_DATA(header).cast::<RawFd>();
                    for at in 0..data_bytes / size_of::<RawFd>() {
                        files.push(File::from_raw_fd(data.add(at).read_unaligned()));
                    }
                }
                header = libc::CMSG_NXTHDR(&raw const message, header);
            }
            Ok(got)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::time::Instant;

    use super::*;
    use crate::data::mapped::{Append, memory_file};

    #[test]
    fn bytes_and_descriptors_arrive_together() {
        let (own, other) = Socket::pair(Duration::from_secs(10)).unwrap();
        let other = Socket(UnixStream::from(other));
        let mut file = memory_file(Append::Nowhere).unwrap();
        file.write_all(b"content").unwrap();
        let descriptors = vec![file.as_raw_fd(); DESCRIPTORS_MAX];
        assert_eq!(own.send(b"frame", &descriptors).unwrap(), 5);
        let (mut buffer, mut files) = ([0; 64], Vec::new());
        assert_eq!(other.receive(&mut buffer, &mut files).unwrap(), 5);
        assert_eq!((&buffer[..5], files.len()), (&b"frame"[..], DESCRIPTORS_MAX));
        let mut text = String::new();
        files[7].rewind().unwrap();
        files[7].read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        drop(other);
        // A program that another test starts at this moment holds a copy of the other side until its exec.
        let deadline = Instant::now() + Duration::from_secs(10);
        while own.send(b"x", &[]).is_ok() {
            assert!(Instant::now() < deadline, "an error and no signal");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
