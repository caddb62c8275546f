//! The PROXY protocol, versions 1 and 2: who the client is, said by a load balancer in a
//! connection's first bytes (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::config::ProxyVersion;

/// What a connection's first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parsed {
    /// A header, or its beginning: more is needed.
    Partial,
    /// Something else.
    Other,
    /// A header of this length. It names a client, or says that the connection is its sender's
    /// own: a health check (LOCAL), or a client without an IP address.
    Header(usize, Option<SocketAddr>),
    /// A header that breaks the protocol.
    Broken(&'static str),
}

/// What was read off the front of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// A header, and the client that it names; none where the connection is its sender's own.
    Header(Option<SocketAddr>),
    /// No header. These bytes were read, and stand before those that were not.
    Nothing(Vec<u8>),
}

/// Reads a header, and no byte more: what follows it may be anyone's. A connection that does not
/// begin as a header does loses nothing, since bytes are looked at before they are taken.
///
/// # Errors
/// The peer closed, reading failed, or the header breaks the protocol.
pub async fn read(stream: &mut TcpStream) -> io::Result<Told> {
    let mut read = Vec::new();
    let mut next = [0; 256];
    loop {
        let seen = stream.peek(&mut next).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = read.len();
        read.extend_from_slice(&next[..seen]);
        let (taken, told) = match parse(&read) {
            Parsed::Partial => (seen, None),
            Parsed::Header(length, client) => (length - before, Some(client)),
            Parsed::Other => {
                read.truncate(before);
                return Ok(Told::Nothing(read));
            }
            Parsed::Broken(why) => return Err(io::Error::new(io::ErrorKind::InvalidData, why)),
        };
        stream.read_exact(&mut next[..taken]).await?;
        if let Some(client) = told {
            return Ok(Told::Header(client));
        }
    }
}

fn parse(bytes: &[u8]) -> Parsed {
    let begins = |signature: &[u8]| {
        let length = signature.len().min(bytes.len());
        bytes[..length] == signature[..length]
    };
    if bytes.len() < V2.len() && begins(V2) || bytes.len() < V1.len() && begins(V1) {
        Parsed::Partial
    } else if begins(V1) {
        text(bytes)
    } else if begins(V2) {
        binary(bytes).unwrap_or(Parsed::Partial)
    } else {
        Parsed::Other
    }
}

/// Version 1: a line such as `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443`.
fn text(bytes: &[u8]) -> Parsed {
    let within = &bytes[..bytes.len().min(LINE)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return match within.len() {
            LINE => Parsed::Broken("a PROXY line longer than 107 bytes"),
            _ => Parsed::Partial,
        };
    };
    let line = within[V1.len()..end].strip_suffix(b"\r");
    let Some(line) = line.and_then(|line| str::from_utf8(line).ok()) else {
        return Parsed::Broken("a PROXY line that is no text ended by CR LF");
    };
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Parsed::Header(end + 1, None);
    }
    let words: Vec<_> = line.split(' ').collect();
    let told = match *words {
        [family, source, to, from_port, to_port] => {
            let ip = match family {
                "TCP4" => first::<Ipv4Addr>(source, to),
                "TCP6" => first::<Ipv6Addr>(source, to),
                _ => None,
            };
            ip.zip(port(from_port)).zip(port(to_port)).map(|(source, _)| source)
        }
        _ => None,
    };
    match told {
        Some(client) => Parsed::Header(end + 1, Some(client.into())),
        None => Parsed::Broken("a PROXY line without two addresses and two ports"),
    }
}

/// The first of two addresses of one family.
fn first<T: FromStr + Into<IpAddr>>(source: &str, to: &str) -> Option<IpAddr> {
    source.parse::<T>().ok().filter(|_| to.parse::<T>().is_ok()).map(Into::into)
}

/// Up to five digits, no zero before others.
fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit());
    let plain = plain && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| plain)
}

/// Version 2: the signature, version and command, family and transport, a length, and so many bytes
/// of addresses and extensions, which are passed over. None where more is needed.
fn binary(bytes: &[u8]) -> Option<Parsed> {
    let rest = &bytes[V2.len()..];
    let (version, command) = (rest.first()? >> 4, rest[0] & 0xf);
    if version != 2 || command > 1 {
        return Some(Parsed::Broken("a PROXY header of an unknown version or command"));
    }
    let (family, transport) = (rest.get(1)? >> 4, rest[1] & 0xf);
    if family > 3 || transport > 2 {
        return Some(Parsed::Broken("a PROXY header of an unknown family or transport"));
    }
    let length = usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]));
    if length > MOST {
        return Some(Parsed::Broken("a PROXY header longer than 528 bytes"));
    }
    let least = match (command, family) {
        (1, 1) => 12,
        (1, 2) => 36,
        (1, 3) => 216,
        _ => 0,
    };
    if length < least {
        return Some(Parsed::Broken("a PROXY header without its addresses"));
    }
    let addresses = rest[4..].get(..length)?;
    // Both addresses, and then both ports.
    let port = |at| Some(u16::from_be_bytes([*addresses.get(at)?, *addresses.get(at + 1)?]));
    let client = match (command, family, transport) {
        (1, 1, 1) => addresses.first_chunk::<4>().map(|it| Ipv4Addr::from(*it).into()).zip(port(8)),
        (1, 2, 1) => {
            addresses.first_chunk::<16>().map(|it| Ipv6Addr::from(*it).into()).zip(port(32))
        }
        _ => None,
    };
    Some(Parsed::Header(V2.len() + 4 + length, client.map(|(ip, port)| SocketAddr::new(ip, port))))
}

/// What a connection begins with that is made for a client: where the client comes from, and what
/// it connected to; or for nobody but the one who makes it.
pub fn header(version: ProxyVersion, client: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let Some((from, to)) = client else {
        return match version {
            ProxyVersion::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
            ProxyVersion::V2 => [V2, &[0x20, 0, 0, 0]].concat(),
        };
    };
    let ports = (from.port(), to.port());
    match (version, from.ip().to_canonical(), to.ip().to_canonical()) {
        (ProxyVersion::V1, IpAddr::V4(from), IpAddr::V4(to)) => {
            format!("PROXY TCP4 {from} {to} {} {}\r\n", ports.0, ports.1).into_bytes()
        }
        (ProxyVersion::V1, from, to) => {
            let (from, to) = (six(from), six(to));
            format!("PROXY TCP6 {from} {to} {} {}\r\n", ports.0, ports.1).into_bytes()
        }
        (ProxyVersion::V2, from, to) => {
            let [first, second] = [ports.0, ports.1].map(u16::to_be_bytes);
            let (family, addresses) = match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => (0x11, [from.octets(), to.octets()].concat()),
                (from, to) => (0x21, [six(from).octets(), six(to).octets()].concat()),
            };
            let length = addresses.len() as u8 + 4;
            [V2, &[0x21, family, 0, length], &addresses, &first, &second].concat()
        }
    }
}

/// Both addresses of a header are of one family.
fn six(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, CR LF included, in bytes.
const LINE: usize = 107;
/// What may follow version 2's first 16 bytes: two addresses of UNIX sockets and then some.
const MOST: usize = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length, body].concat()
    }

    fn client(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn headers_name_clients_or_nobody() {
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0, 1, 0, 2];
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        for (bytes, told) in [
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 0 65535\r\n".to_vec(), client("192.0.2.1:0")),
            (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(), client("[2001:db8::1]:1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN whatever it is\r\n".to_vec(), None),
            (v2(0x21, 0x11, &v4), client("192.0.2.1:1")),
            (v2(0x21, 0x11, &[&v4[..], &[4, 0, 3, 1, 2, 3]].concat()), client("192.0.2.1:1")),
            (v2(0x21, 0x21, &v6), client("[2001:db8::]:0")),
            (v2(0x20, 0x11, &v4), None),
            (v2(0x20, 0, &[]), None),
            (v2(0x21, 0, &[1, 2, 3]), None),
            (v2(0x21, 0x12, &v4), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ] {
            let whole = [&bytes[..], b"PRI * HTTP/2.0"].concat();
            assert_eq!(parse(&whole), Parsed::Header(bytes.len(), told), "{bytes:?}");
            for end in 1..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Parsed::Partial, "{end} of {bytes:?}");
            }
        }
    }

    #[test]
    fn headers_that_break_the_protocol_are_none() {
        let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 92], b"\r\n"].concat();
        for bytes in [
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1 +2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1  198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2 \r\n".to_vec(),
            b"PROXY TCP4 192.0.2.01 198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP6 192.0.2.1 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP5 192.0.2.1 198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY unknown\r\n".to_vec(),
            b"PROXY \xff\r\n".to_vec(),
            long,
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x41, &[0; 12]),
            v2(0x21, 0x13, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x20, 0, &[0; 513]),
        ] {
            assert!(matches!(parse(&bytes), Parsed::Broken(_)), "{bytes:?}");
        }
    }

    #[test]
    fn what_begins_otherwise_is_something_else() {
        for bytes in
            [b"PRI * HTTP/2.0".as_slice(), b"GET /", b"\x16\x03\x01", b"PROPFIND", b"\r\nG"]
        {
            assert_eq!(parse(bytes), Parsed::Other, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_more_of_them_change_nothing(
            signature in prop::sample::select(vec![&b""[..], V1, V2, b"PROXY TCP4 ", b"PROXY TCP6 "]),
            bytes in prop::collection::vec(any::<u8>(), 0..700),
        ) {
            let all = [signature, &bytes].concat();
            let whole = parse(&all);
            for end in 1..all.len() {
                let part = parse(&all[..end]);
                prop_assert!(part == whole || part == Parsed::Partial, "{end}: {part:?}, {whole:?}");
            }
            if let Parsed::Header(length, _) = whole {
                prop_assert!(length <= all.len() && length <= 16 + MOST);
            }
        }

        #[test]
        fn what_is_said_is_heard(from: SocketAddr, to: SocketAddr) {
            let from = SocketAddr::new(from.ip().to_canonical(), from.port());
            for version in [ProxyVersion::V1, ProxyVersion::V2] {
                let bytes = header(version, Some((from, to)));
                let Parsed::Header(length, Some(heard)) = parse(&bytes) else {
                    return Err(TestCaseError::fail(format!("{bytes:?}")));
                };
                prop_assert_eq!((length, heard.ip().to_canonical()), (bytes.len(), from.ip()));
                prop_assert_eq!(heard.port(), from.port());
                let own = header(version, None);
                prop_assert_eq!(parse(&own), Parsed::Header(own.len(), None));
            }
        }

        #[test]
        fn extensions_are_passed_over(six: Ipv6Addr, more in 0..400_usize) {
            let bytes = v2(0x21, 0x21, &[&six.octets()[..], &vec![0; 20 + more]].concat());
            let client = SocketAddr::new(six.into(), 0);
            prop_assert_eq!(parse(&bytes), Parsed::Header(bytes.len(), Some(client)));
        }
    }
}
