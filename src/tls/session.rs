//! The records of one connection whose handshake is done.

use std::io::{self, IoSlice, Read, Write};

use rustls::{ClientConnection, Connection, ServerConnection, pki_types::CertificateDer};
use tokio::net::TcpStream;

/// Between a socket and the bytes that are meant. It knows no time and never waits.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    /// How many bytes are in records that the socket has not wholly taken.
    sealed: usize,
}

impl From<ServerConnection> for Session {
    fn from(connection: ServerConnection) -> Self {
        Self { connection: connection.into(), sealed: 0 }
    }
}

impl From<ClientConnection> for Session {
    fn from(connection: ClientConnection) -> Self {
        Self { connection: connection.into(), sealed: 0 }
    }
}

impl Session {
    /// What the peer has shown of itself, which the handshake has verified.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.connection.peer_certificates()?.first()
    }

    /// How many bytes a socket may have taken a part of that [`Session::write`] has not counted.
    pub fn sealed(&self) -> usize {
        self.sealed
    }

    /// Takes what the socket read, and puts what it means at the end of `plain`. False where the
    /// peer has said that no more will come.
    ///
    /// # Errors
    /// What was read is no TLS of this connection. The peer is told why where `socket` takes it.
    pub fn open(
        &mut self,
        mut input: &[u8],
        plain: &mut Vec<u8>,
        socket: &TcpStream,
    ) -> io::Result<bool> {
        while !input.is_empty() {
            self.connection.read_tls(&mut input)?;
            let processed = self.connection.process_new_packets();
            let going_on = self.take(plain);
            if let Err(error) = processed {
                self.tell(socket);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            if !going_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts what was read with the end of the handshake at the end of `plain`; false as for
    /// [`Session::open`].
    pub fn take(&mut self, plain: &mut Vec<u8>) -> bool {
        match self.connection.reader().read_to_end(plain) {
            Ok(_) => false,
            // There is no more yet.
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// Writes `slices` as a socket does: how many bytes of them it has taken, here in whole
    /// records. Those of records that it has a part of are to come first in the next call too.
    ///
    /// # Errors
    /// What the socket says.
    pub fn write(&mut self, socket: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut own = [IoSlice::new(&[]); SLICES];
        let count = slices.len().min(SLICES);
        own[..count].copy_from_slice(&slices[..count]);
        let mut rest = &mut own[..count];
        let mut taken = 0;
        let mut moved = false;
        loop {
            while self.connection.wants_write() {
                match self.connection.write_tls(&mut Socket(socket)) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(_) => moved = true,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && moved => {
                        return Ok(taken);
                    }
                    Err(error) => return Err(error),
                }
            }
            IoSlice::advance_slices(&mut rest, self.sealed);
            taken += std::mem::take(&mut self.sealed);
            if rest.is_empty() {
                return Ok(taken);
            }
            self.sealed = self.connection.writer().write_vectored(rest)?;
            if self.sealed == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
    }

    /// Tells the peer that nothing more comes, where the socket takes that now.
    pub fn close(&mut self, socket: &TcpStream) {
        self.connection.send_close_notify();
        self.tell(socket);
    }

    /// Writes what waits. A peer that does not take it learns it from the socket's end.
    fn tell(&mut self, socket: &TcpStream) {
        while self.connection.wants_write()
            && self.connection.write_tls(&mut Socket(socket)).is_ok_and(|written| written > 0)
        {
        }
    }
}

/// A socket that never waits, as rustls writes to it.
struct Socket<'a>(&'a TcpStream);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Pieces that are taken at a time.
const SLICES: usize = 64;
