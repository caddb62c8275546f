//! Request heads as the OTLP exporters of Go, Java and Python put them on the wire.
//!
//! Fields, order and forms are those seen in captures of grpc-go and grpcio, and of grpc-java
//! those that its sources write: grpc-go by Huffman, all of it into the dynamic table, the values
//! that differ in each call too; grpc-java the same without Huffman; grpcio without Huffman, its
//! own names never by index, custom metadata as plain literals, and timeouts rounded so that few
//! values return again and again.

use crate::{
    hpack::{self, Encoder, Insertion},
    request::{Heads, Request},
};

/// The library that is played.
#[derive(Debug, Clone, Copy)]
enum Exporter {
    Go,
    Java,
    Python,
}

/// A head, and what one connection's dynamic table has of it.
#[derive(Debug)]
pub(crate) struct Head {
    fields: Vec<Field>,
    huffman: bool,
    /// Whether a name in the dynamic table is named by its index.
    indexes_names: bool,
}

impl Head {
    /// The head of a connection's calls: of four connections two are Go's, as most of what a
    /// distributor sees comes from collectors.
    pub(crate) fn new(connection: usize, request: Request, heads: Heads) -> Self {
        if request == Request::Get {
            return Self { fields: get(), huffman: true, indexes_names: true };
        }
        let exporter = match connection % 4 {
            1 => Exporter::Java,
            2 => Exporter::Python,
            _ => Exporter::Go,
        };
        let mut fields = match exporter {
            Exporter::Go => go(request),
            Exporter::Java => java(request),
            Exporter::Python => python(request),
        };
        if heads == Heads::Constant {
            fields.retain(|field| field.turn != Turn::Odd);
            fields.iter_mut().for_each(Field::hold);
        }
        let go = matches!(exporter, Exporter::Go);
        Self { fields, huffman: go, indexes_names: !matches!(exporter, Exporter::Python) }
    }

    /// The head of a response, as grpc-go's servers write it.
    pub(crate) fn response() -> Self {
        let fields =
            vec![field(":status", 8, Value::Static), text("content-type", 31, "application/grpc")];
        Self { fields, huffman: true, indexes_names: true }
    }

    /// The trailers of a response, as grpc-go's servers write them.
    pub(crate) fn trailers(status: &str, message: &str) -> Self {
        let fields = vec![text("grpc-status", 0, status), text("grpc-message", 0, message)];
        Self { fields, huffman: true, indexes_names: true }
    }

    /// Appends the header block of one call.
    pub(crate) fn encode(&mut self, encoder: &mut Encoder, call: u64, out: &mut Vec<u8>) {
        encoder.open(out);
        for field in &mut self.fields {
            let now = match field.turn {
                Turn::Each => true,
                Turn::Even => call.is_multiple_of(2),
                Turn::Odd => !call.is_multiple_of(2),
            };
            if now {
                field.encode(encoder, call, self.huffman, self.indexes_names, out);
            }
        }
    }
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    /// The name's index in the static table, or 0 for a name in letters.
    index: u8,
    value: Value,
    indexed: bool,
    turn: Turn,
    inserted: Option<Insertion>,
}

#[derive(Debug)]
enum Value {
    /// The static table has this very field.
    Static,
    Text(String),
    /// A deadline of ten seconds, less what has passed of it.
    Timeout,
    /// The trace context of W3C.
    Traceparent,
}

/// In which calls a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Each,
    Even,
    Odd,
}

impl Field {
    /// Makes a value that would differ in each call the same in all.
    fn hold(&mut self) {
        let mut text = [0; LONGEST];
        if let Value::Timeout | Value::Traceparent = self.value {
            let text = self.value.write(0, &mut text);
            self.value = Value::Text(String::from_utf8_lossy(text).into_owned());
        }
    }

    fn encode(
        &mut self,
        encoder: &mut Encoder,
        call: u64,
        huffman: bool,
        indexes_names: bool,
        out: &mut Vec<u8>,
    ) {
        if let Value::Static = self.value {
            out.push(0x80 | self.index);
            return;
        }
        let entry = self.inserted.and_then(|insertion| encoder.index(insertion));
        if let (Some(index), Value::Text(_)) = (entry, &self.value) {
            hpack::integer(out, 0x80, 7, index);
            return;
        }
        let mut text = [0; LONGEST];
        let value = self.value.write(call, &mut text);
        let indexed = self.indexed && encoder.takes(self.name.len(), value.len());
        let (mark, prefix) = if indexed { (0x40, 6) } else { (0, 4) };
        let name = match (self.index, entry) {
            (0, Some(index)) if indexes_names => index,
            (index, _) => u64::from(index),
        };
        hpack::integer(out, mark, prefix, name);
        if name == 0 {
            hpack::string(out, self.name.as_bytes(), huffman);
        }
        hpack::string(out, value, huffman);
        if indexed {
            self.inserted = encoder.insert(self.name.len(), value.len());
        }
    }
}

/// The longest value that is written anew for each call.
const LONGEST: usize = 55;

impl Value {
    fn write<'a>(&'a self, call: u64, text: &'a mut [u8; LONGEST]) -> &'a [u8] {
        match self {
            Self::Static => &[],
            Self::Text(text) => text.as_bytes(),
            Self::Timeout => {
                let mut rest = 9_990_000 + mix(call) % 9_999;
                for digit in text[..7].iter_mut().rev() {
                    *digit = b'0' + (rest % 10) as u8;
                    rest /= 10;
                }
                text[7] = b'u';
                &text[..8]
            }
            Self::Traceparent => {
                text.copy_from_slice(b"00-................................-................-01");
                hex(mix(call), &mut text[3..19]);
                hex(mix(!call), &mut text[19..35]);
                hex(mix(call ^ 0x5555), &mut text[36..52]);
                text
            }
        }
    }
}

fn hex(mut number: u64, out: &mut [u8]) {
    for digit in out {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// Spreads the bits of a counter over a whole number (the finalizer of splitmix64).
fn mix(counter: u64) -> u64 {
    let mut bits = counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

fn field(name: &'static str, index: u8, value: Value) -> Field {
    Field { name, index, value, indexed: true, turn: Turn::Each, inserted: None }
}

fn text(name: &'static str, index: u8, value: &str) -> Field {
    field(name, index, Value::Text(value.to_owned()))
}

fn encoding(request: Request) -> Option<Field> {
    matches!(request, Request::Export { gzip: true, .. }).then(|| text("grpc-encoding", 0, "gzip"))
}

fn go(request: Request) -> Vec<Field> {
    let mut fields = vec![
        field(":method", 3, Value::Static),
        field(":scheme", 6, Value::Static),
        text(":path", 5, request.path()),
        text(":authority", 1, AUTHORITY),
        text("content-type", 31, "application/grpc"),
        text("user-agent", 58, "OTel OTLP Exporter Go/1.38.0 grpc-go/1.75.1"),
        text("te", 0, "trailers"),
    ];
    fields.extend(encoding(request));
    fields.extend([
        text("grpc-accept-encoding", 0, "gzip"),
        field("grpc-timeout", 0, Value::Timeout),
        field("traceparent", 0, Value::Traceparent),
    ]);
    fields
}

fn java(request: Request) -> Vec<Field> {
    let mut fields = vec![
        text(":authority", 1, AUTHORITY),
        text(":path", 4, request.path()),
        field(":method", 3, Value::Static),
        field(":scheme", 6, Value::Static),
        text("content-type", 31, "application/grpc"),
        text("te", 0, "trailers"),
        text("user-agent", 58, "OTel-OTLP-Exporter-Java/1.53.0 grpc-java-netty/1.74.0"),
        field("traceparent", 0, Value::Traceparent),
    ];
    fields.extend(encoding(request));
    fields.extend([
        text("grpc-accept-encoding", 0, "gzip"),
        field("grpc-timeout", 0, Value::Timeout),
    ]);
    fields
}

fn python(request: Request) -> Vec<Field> {
    let agent = "OTel-OTLP-Exporter-Python/1.45.2 grpc-python/1.85.1 grpc-c/58.0.0 (linux; chttp2)";
    let mut fields = vec![
        text(":path", 0, request.path()),
        text(":authority", 0, AUTHORITY),
        field(":method", 3, Value::Static),
        field(":scheme", 6, Value::Static),
        text("content-type", 0, "application/grpc"),
        text("te", 0, "trailers"),
    ];
    fields.extend(encoding(request));
    fields.extend([
        text("grpc-accept-encoding", 0, "identity, deflate, gzip"),
        Field { turn: Turn::Even, ..text("grpc-timeout", 0, "10S") },
        Field { turn: Turn::Odd, ..text("grpc-timeout", 0, "10100m") },
        text("user-agent", 0, agent),
        Field { indexed: false, ..field("traceparent", 0, Value::Traceparent) },
    ]);
    fields
}

/// A load balancer's check.
fn get() -> Vec<Field> {
    vec![
        field(":method", 2, Value::Static),
        field(":scheme", 6, Value::Static),
        text(":path", 5, Request::Get.path()),
        text(":authority", 1, AUTHORITY),
        text("user-agent", 58, "GoogleHC/1.0"),
    ]
}

const AUTHORITY: &str = "tempo.example.com:4317";
