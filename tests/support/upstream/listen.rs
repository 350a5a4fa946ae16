//! The port, and what speaks on the connections that come in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::{Hub, h2, lock, record, wire};

/// A socket under TLS or not, whose TCP side can be made to break.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    fn tcp(&self) -> &TcpStream;

    /// Makes the drop of this socket a reset.
    fn arm_reset(&self) {
        let _ = self.tcp().set_zero_linger();
    }
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

pub(super) fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

#[expect(clippy::disallowed_methods, reason = "aborted when the upstream is dropped")]
pub(super) fn open(listener: TcpListener, hub: Arc<Hub>) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let _ = socket.set_nodelay(true);
            let link = hub.ledger.link();
            let mut connections = lock(&hub.connections);
            if reap(&mut connections) {
                hub.ledger.book().panicked = true;
            }
            connections.spawn(serve(socket, Arc::clone(&hub), link));
        }
    })
}

/// Forgets the connections that have ended; whether one of them panicked.
pub(super) fn reap(connections: &mut JoinSet<()>) -> bool {
    let mut panicked = false;
    while let Some(ended) = connections.try_join_next() {
        panicked |= ended.is_err_and(|error| error.is_panic());
    }
    panicked
}

async fn serve(mut socket: TcpStream, hub: Arc<Hub>, link: record::Link) {
    let Some(tls) = &hub.tls else {
        let mut buffer = BytesMut::new();
        return match speaks_h2(&mut socket, &mut buffer, &link).await {
            Ok(true) => h2::serve(socket, buffer, hub, link).await,
            Ok(false) => wire::serve(socket, buffer, &hub, link).await,
            Err(_) => {}
        };
    };
    let Ok(socket) = tls.acceptor.accept(socket).await else { return };
    if socket.get_ref().1.alpn_protocol() == Some(b"h2") {
        h2::serve(socket, BytesMut::new(), hub, link).await;
    } else {
        wire::serve(socket, BytesMut::new(), &hub, link).await;
    }
}

/// Whether the connection begins as HTTP/2 does. `PUT`, `POST` and `PATCH` share the first letter, and a client may name
/// a method of its own.
async fn speaks_h2(socket: &mut TcpStream, buffer: &mut BytesMut, link: &record::Link) -> io::Result<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0";
    while buffer.len() < PREFACE.len() && PREFACE.starts_with(buffer) {
        tokio::select! {
            () = link.closing() => return Err(io::ErrorKind::ConnectionAborted.into()),
            read = socket.read_buf(buffer) => if read? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            },
        }
    }
    Ok(buffer.starts_with(PREFACE))
}
