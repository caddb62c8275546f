//! Header blocks that get past the first check, so that what is behind it is met.

use upbeat::http2::{huffman, literal::put_integer};

use crate::Input;

/// Appends one block, as the input says.
pub(crate) fn block(input: &mut Input<'_>, out: &mut Vec<u8>) {
    let shape = input.byte();
    // A table size update first (RFC 7541, 4.2).
    if shape & 0x80 != 0 {
        put_integer(0x20, 5, usize::from(input.byte()) << 5, out);
    }
    let form = input.byte();
    match shape & 0x0f {
        0..=3 => {
            out.extend([0x83, 0x86]);
            let path = PATHS[usize::from(input.byte()) % PATHS.len()];
            literal(form, b":path", path, out);
            literal(form >> 1, b":authority", b"a:1", out);
            literal(form >> 2, b"content-type", b"application/grpc", out);
            literal(form >> 3, b"te", b"trailers", out);
        }
        4 => {
            out.extend([0x82, 0x87]);
            let path = PATHS[usize::from(input.byte()) % PATHS.len()];
            literal(form, b":path", path, out);
            literal(form >> 1, b"host", b"a", out);
        }
        // What was put into the table before.
        5 => out.extend([0x83, 0x86, 0xbe, 0xbf, 0xc0, 0xc1]),
        6 | 7 => {
            out.push(0x88);
            literal(form, b"content-type", b"application/grpc+proto", out);
        }
        8 => literal(form, b"grpc-status", &[b'0' + form % 20], out),
        9 => {
            literal(form, b":status", b"200", out);
            literal(form, b"content-type", b"application/grpc", out);
            literal(form, b"grpc-status", b"5", out);
        }
        10 => literal(form, b":status", &[b'1' + form % 5, b'0', b'0' + form % 10], out),
        _ => {}
    }
    for _ in 0..shape >> 4 & 0x07 {
        let (form, pick) = (input.byte(), usize::from(input.byte()));
        let (name, value) = FIELDS[pick % FIELDS.len()];
        match form & 0x0f {
            0..=7 => literal(form, name, value, out),
            8..=10 => literal(form, name, &vec![b'v'; pick * 16], out),
            11 => out.push(form | 0x80),
            12 => {
                let length = pick % 16;
                literal(form, name, input.take(length), out);
            }
            13 => {
                let length = pick % 16;
                literal(form, input.take(length), value, out);
            }
            14 => literal(form, b"content-length", pick.to_string().as_bytes(), out),
            _ => out.extend(input.take(pick % 32)),
        }
    }
}

/// Appends a literal field with a name of its own: by `form` into the table, never indexed, or
/// neither, and coded or not.
fn literal(form: u8, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push([0x40, 0x40, 0x10, 0x00][usize::from(form & 3)]);
    for text in [name, value] {
        if form & 4 == 0 {
            put_integer(0, 7, text.len(), out);
            out.extend(text);
        } else {
            put_integer(0x80, 7, huffman::encoded_len(text), out);
            huffman::encode(text, out);
        }
    }
}

/// Of each route that there is.
const PATHS: [&[u8]; 8] = [
    b"/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    b"/tempopb.Pusher/PushBytesV2",
    b"/grpc.health.v1.Health/Check",
    b"/grpc.health.v1.Health/Watch",
    b"/grpc.health.v1.Health/List",
    b"/AWS.ALB/healthcheck",
    b"/healthz?service=otlp",
    b"/livez",
];

/// Fields with a meaning, and some without.
const FIELDS: [(&[u8], &[u8]); 16] = [
    (b"x-scope-orgid", b"tenant"),
    (b"grpc-timeout", b"100m"),
    (b"grpc-status", b"0"),
    (b"grpc-status", b"14"),
    (b"grpc-message", b"why"),
    (b"grpc-encoding", b"gzip"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    (b"content-length", b"5"),
    (b"te", b"trailers"),
    (b"te", b"gzip"),
    (b"connection", b"close"),
    (b":path", b"/again"),
    (b"x-empty", b""),
    (b"X-Upper", b"v"),
    (b"user-agent", b"fuzz"),
    (b"host", b"b"),
];
