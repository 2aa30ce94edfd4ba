//! Readiness of a descriptor of any kind, from glommio.
//!
//! The only `unsafe` of the crate: glommio's types take plain descriptor numbers.

#![allow(unsafe_code)]

use std::future::poll_fn;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd};
use std::pin::Pin;

use futures_lite::io::AsyncRead;

/// A readable descriptor of any kind.
///
/// glommio has no type for this, but its stream submits a read request for any descriptor as soon as it
/// is created. The result of that read does not matter.
pub(super) struct Readable {
    /// Closed when this is dropped.
    _stream: glommio::net::TcpStream,
}

impl Readable {
    /// Waits until the descriptor is readable. Returns `None` if no descriptor is left for the copy
    /// that this needs.
    pub(super) async fn of(fd: BorrowedFd<'_>) -> Option<Self> {
        let copy = fd.try_clone_to_owned().ok()?.into_raw_fd();
        // SAFETY: `into_raw_fd` gave up the descriptor, so the stream is its only owner.
        let mut stream = unsafe { glommio::net::TcpStream::from_raw_fd(copy) };
        let _ = poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut [0])).await;
        Some(Self { _stream: stream })
    }
}
