//! One client, and what it does to the proxy. Every answer is compared with the one that was wished for.

use std::{net::SocketAddr, time::Duration};

use tokio::net::TcpSocket;

use crate::{
    support::client::{Connection, Failure},
    wish::{HEADER, Wish},
};

/// What a slow reader's system takes before it is read.
const SMALL_WINDOW: u32 = 8 << 10;
/// How long it rests after each piece.
const REST: Duration = Duration::from_millis(1);
const CHUNK: usize = 100;

/// A client with its connection.
pub(crate) struct Client {
    address: SocketAddr,
    connection: Option<Connection>,
}

/// Why a request did not go as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("{0}")]
    Failure(#[from] Failure),
    #[error("status {status}: {}", String::from_utf8_lossy(text))]
    Status { status: u16, text: Vec<u8> },
    #[error("the answer is not the one that the upstream gave")]
    OtherText,
    #[error("a broken stream ended as if it were complete")]
    SeemsComplete,
    #[error("it never ended")]
    Hung,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, connection: None }
    }

    /// Asks and reads the answer to its end.
    pub(crate) async fn whole(&mut self, wish: &Wish) -> Result<(), Trouble> {
        self.send_and_compare(wish, &request(wish, 0)).await
    }

    /// The same with a large body.
    pub(crate) async fn large(&mut self, wish: &Wish, padding: usize) -> Result<(), Trouble> {
        self.send_and_compare(wish, &request(wish, padding)).await
    }

    /// The same with a body of unknown length.
    pub(crate) async fn chunked(&mut self, wish: &Wish) -> Result<(), Trouble> {
        let body = wish.body(0);
        let mut request = head(wish, "transfer-encoding: chunked\r\n");
        for chunk in body.chunks(CHUNK) {
            request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            request.extend_from_slice(chunk);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        self.send_and_compare(wish, &request).await
    }

    /// The same on a new connection, which is closed afterwards.
    pub(crate) async fn on_its_own(&mut self, wish: &Wish) -> Result<(), Trouble> {
        self.connection = None;
        let body = wish.body(0);
        let mut request = head(wish, &format!("connection: close\r\ncontent-length: {}\r\n", body.len()));
        request.extend_from_slice(&body);
        self.send_and_compare(wish, &request).await
    }

    /// Takes its time over the answer.
    pub(crate) async fn read_slowly(&mut self, wish: &Wish) -> Result<(), Trouble> {
        let socket = TcpSocket::new_v4().map_err(|_| Failure::Connect)?;
        socket.set_recv_buffer_size(SMALL_WINDOW).map_err(|_| Failure::Connect)?;
        let socket = socket.connect(self.address).await.map_err(|_| Failure::Connect)?;
        let mut connection = Connection::over(socket).map_err(|_| Failure::Connect)?;
        connection.send(&request(wish, 0)).await?;
        expect(200, &mut connection).await?;
        let mut text = Vec::new();
        while let Some(piece) = connection.piece().await? {
            text.extend_from_slice(piece);
            tokio::time::sleep(REST).await;
        }
        if text == wish.text() { Ok(()) } else { Err(Trouble::OtherText) }
    }

    /// Expects an answer that breaks off, and is the start of the right one as far as it goes.
    pub(crate) async fn broken(&mut self, wish: &Wish) -> Result<(), Trouble> {
        let mut connection = self.connect().await?;
        connection.send(&request(wish, 0)).await?;
        expect(200, &mut connection).await?;
        let mut text = Vec::new();
        loop {
            match connection.piece().await {
                Ok(Some(piece)) => text.extend_from_slice(piece),
                Ok(None) => return Err(Trouble::SeemsComplete),
                Err(Failure::Cut) if wish.text().starts_with(&text) => return Ok(()),
                Err(Failure::Cut) => return Err(Trouble::OtherText),
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    /// Sends what is no JSON, which must be refused.
    pub(crate) async fn refused(&mut self, id: u64) -> Result<(), Trouble> {
        let mut connection = self.connect().await?;
        let body = format!("{{\"model\": {id}");
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: proxy\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.send(request.as_bytes()).await?;
        expect(400, &mut connection).await?;
        connection.body().await?;
        self.keep(connection);
        Ok(())
    }

    /// Goes away in the middle of its request.
    pub(crate) async fn leave_in_body(&mut self, wish: &Wish) -> Result<(), Trouble> {
        let mut connection = self.connect().await?;
        let request = request(wish, CHUNK);
        connection.send(&request[..request.len() - CHUNK]).await?;
        Ok(())
    }

    /// Goes away before there is an answer.
    pub(crate) async fn leave_before_head(&mut self, wish: &Wish, after: Duration) -> Result<(), Trouble> {
        let mut connection = self.connect().await?;
        connection.send(&request(wish, 0)).await?;
        tokio::time::sleep(after).await;
        Ok(())
    }

    /// Goes away when a stream has begun.
    pub(crate) async fn leave_in_stream(&mut self, wish: &Wish) -> Result<(), Trouble> {
        let mut connection = self.connect().await?;
        connection.send(&request(wish, 0)).await?;
        expect(200, &mut connection).await?;
        match connection.piece().await? {
            Some(piece) if wish.text().starts_with(piece) => Ok(()),
            _ => Err(Trouble::OtherText),
        }
    }

    /// Pauses, and notices whether the connection has been closed meanwhile.
    pub(crate) async fn pause(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
        if self.connection.as_mut().is_some_and(Connection::has_ended) {
            self.connection = None;
        }
    }

    /// The connection of the request before, or a new one. Whoever does not `keep` it closes it.
    async fn connect(&mut self) -> Result<Connection, Failure> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(self.address).await,
        }
    }

    fn keep(&mut self, connection: Connection) {
        self.connection = Some(connection).filter(Connection::is_reusable);
    }

    async fn send_and_compare(&mut self, wish: &Wish, request: &[u8]) -> Result<(), Trouble> {
        let mut connection = self.connect().await?;
        connection.send(request).await?;
        expect(200, &mut connection).await?;
        let text = connection.body().await?;
        self.keep(connection);
        if text == wish.text() { Ok(()) } else { Err(Trouble::OtherText) }
    }
}

/// Reads a head, and of an answer with another status all of it.
async fn expect(expected: u16, connection: &mut Connection) -> Result<(), Trouble> {
    let status = connection.head().await?;
    if status == expected {
        return Ok(());
    }
    Err(Trouble::Status { status, text: connection.body().await? })
}

fn request(wish: &Wish, padding: usize) -> Vec<u8> {
    let body = wish.body(padding);
    let mut request = head(wish, &format!("content-length: {}\r\n", body.len()));
    request.extend_from_slice(&body);
    request
}

fn head(wish: &Wish, framing: &str) -> Vec<u8> {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: proxy\r\nauthorization: Bearer sk-client\r\n\
         content-type: application/json\r\n{HEADER}: {wish}\r\n{framing}\r\n"
    )
    .into_bytes()
}
