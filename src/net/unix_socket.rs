//! Listening unix sockets, and their files.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// The file of a bound unix socket. Dropping it removes the file, unless another socket has its place. Drop it before the
/// socket closes: then the file is never that of a successor.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    id: Option<(u64, u64)>,
}

impl SocketFile {
    fn new(path: &Path) -> Self {
        Self {
            path: path.into(),
            id: Self::id(path),
        }
    }

    fn id(path: &Path) -> Option<(u64, u64)> {
        let file = fs::symlink_metadata(path).ok()?;
        Some((file.dev(), file.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.id.is_some() && self.id == Self::id(&self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens a listening unix socket whose file has this mode. A socket file that no process listens on is replaced.
pub(crate) fn listen(path: &Path, mode: u32, backlog: i32) -> io::Result<(SocketFile, Socket)> {
    if is_left_behind(path) {
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The mode of the socket becomes the mode of its file, without the bits of the umask: those come after the bind.
    let file = File::from(OwnedFd::from(socket));
    file.set_permissions(Permissions::from_mode(mode))?;
    let socket = Socket::from(OwnedFd::from(file));
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::new(path);
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok((file, socket))
}

/// Returns whether a path is the socket file of a process that has ended. It never waits: a process that accepts
/// nothing may have a full backlog.
fn is_left_behind(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    let is_refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && connect().is_err_and(is_refused)
}
