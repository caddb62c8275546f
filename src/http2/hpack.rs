//! HPACK (RFC 7541) that carries fields across by identity.
//!
//! The decoder hands out each line of a header block in one of two forms. A [`Line::Known`] field
//! has an identity: the static table's, or that of an entry which the peer referred to again, and
//! so showed that it repeats. Anything else is [`Line::Moving`]: its value is looked at, but kept
//! as it is coded. The encoder writes a known field as an index, putting it into the table when it
//! comes first, and copies a moving one without touching its table.

mod decode;
mod encode;

use std::rc::Rc;

pub use self::decode::{Broken, Decoder};
pub use self::encode::Encoder;
use super::{
    field::{Field, Name},
    literal::Literal,
};

/// One field of a header block.
#[derive(Debug)]
pub enum Line<'a> {
    /// A field that repeats.
    Known(&'a Rc<Field>),
    /// A field that came as a literal.
    Moving(Moving<'a>),
}

/// A field that came as a literal.
#[derive(Debug)]
pub struct Moving<'a> {
    /// Its name.
    pub name: &'a Rc<Name>,
    /// Its value as it is coded.
    pub value: Literal<'a>,
    /// The length of its value as text, in bytes.
    pub length: usize,
    /// Whether name and value are what RFC 9113, 8.2.1 allows.
    pub lawful: bool,
    /// Whether no table may ever hold it (RFC 7541, 6.2.3).
    pub never_indexed: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http2::field::Fields;

    /// Decodes a block to text.
    fn text(
        decoder: &mut Decoder,
        fields: &mut Fields,
        block: &[u8],
    ) -> Result<Vec<(String, String)>, Broken> {
        let mut lines = Vec::new();
        let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        decoder.decode(block, fields, |line| match line {
            Line::Known(field) => lines.push((string(field.name().plain()), string(field.value()))),
            Line::Moving(moving) => {
                let mut plain = Vec::new();
                moving.value.decode(&mut plain).unwrap();
                assert_eq!(plain.len(), moving.length);
                lines.push((string(moving.name.plain()), string(&plain)));
            }
        })?;
        Ok(lines)
    }

    /// Decodes a block and writes it with `encoder`.
    fn relay(
        decoder: &mut Decoder,
        encoder: &mut Encoder,
        fields: &mut Fields,
        block: &[u8],
    ) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        decoder
            .decode(block, fields, |line| match line {
                Line::Known(field) => encoder.known(field, &mut out),
                Line::Moving(moving) => encoder.moving(&moving, &mut out),
            })
            .unwrap();
        out
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn requests_of_the_rfc() {
        // RFC 7541, C.3 without and C.4 with Huffman; one context each.
        for blocks in [
            [
                "828684410f7777772e6578616d706c652e636f6d",
                "828684be58086e6f2d6361636865",
                "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
            ],
            [
                "828684418cf1e3c2e5f23a6ba0ab90f4ff",
                "828684be5886a8eb10649cbf",
                "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
            ],
        ] {
            let (mut decoder, mut fields) = (Decoder::new(4096), Fields::new());
            let host = (":authority", "www.example.com");
            let (get, http, path) = ((":method", "GET"), (":scheme", "http"), (":path", "/"));
            let (https, index) = ((":scheme", "https"), (":path", "/index.html"));
            for (block, list) in blocks.iter().zip([
                vec![get, http, path, host],
                vec![get, http, path, host, ("cache-control", "no-cache")],
                vec![get, https, index, host, ("custom-key", "custom-value")],
            ]) {
                let seen = text(&mut decoder, &mut fields, &hex(block)).unwrap();
                assert_eq!(seen, pairs(&list));
            }
            assert_eq!(decoder.size(), 164);
        }
    }

    #[test]
    fn responses_of_the_rfc_evict() {
        // RFC 7541, C.6: a table of 256 bytes.
        let (mut decoder, mut fields) = (Decoder::new(256), Fields::new());
        for (block, first, size) in [
            (
                "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
                "302",
                222,
            ),
            ("4883640effc1c0bf", "307", 222),
            (
                "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                "200",
                215,
            ),
        ] {
            let seen = text(&mut decoder, &mut fields, &hex(block)).unwrap();
            assert_eq!(seen[0], (":status".to_owned(), first.to_owned()));
            assert_eq!(decoder.size(), size);
        }
    }

    #[test]
    fn a_field_that_repeats_becomes_an_index_and_one_that_moves_does_not() {
        let (mut decoder, mut encoder, mut fields) =
            (Decoder::new(4096), Encoder::new(4096), Fields::new());
        // `x-a: b` with incremental indexing, then twice by its index.
        let first = [0x40, 3, b'x', b'-', b'a', 1, b'b'];
        let out = relay(&mut decoder, &mut encoder, &mut fields, &first);
        assert_eq!(out[0], 0x00, "a literal that enters no table");
        let out = relay(&mut decoder, &mut encoder, &mut fields, &[0xbe]);
        assert_eq!(out[0], 0x40, "now it is known to repeat");
        let out = relay(&mut decoder, &mut encoder, &mut fields, &[0xbe]);
        assert_eq!(out, [0xbe]);
        // Another value of the same name each time.
        for value in b'c'..b'z' {
            let moving = [0x7e, 1, value];
            let out = relay(&mut decoder, &mut encoder, &mut fields, &moving);
            assert_eq!(out[0], 0x00);
        }
        assert_eq!(encoder.size(), 36, "the table holds `x-a: b` alone");
    }

    #[test]
    fn equal_fields_of_two_connections_have_one_identity() {
        let (mut encoder, mut fields) = (Encoder::new(4096), Fields::new());
        let mut last = Vec::new();
        for _ in 0..3 {
            let mut decoder = Decoder::new(4096);
            let first = [0x40, 3, b'x', b'-', b'a', 1, b'b'];
            relay(&mut decoder, &mut encoder, &mut fields, &first);
            last = relay(&mut decoder, &mut encoder, &mut fields, &[0xbe]);
        }
        assert_eq!(last, [0xbe]);
        assert_eq!(encoder.size(), 36);
    }

    #[test]
    fn never_indexed_fields_stay_so() {
        let (mut decoder, mut encoder, mut fields) =
            (Decoder::new(4096), Encoder::new(4096), Fields::new());
        let block = [0x10, 3, b'k', b'e', b'y', 1, b'v', 0x1f, 8, 1, b't'];
        let out = relay(&mut decoder, &mut encoder, &mut fields, &block);
        assert_eq!(out[0], 0x10);
        assert_eq!(&out[out.len() - 4..], [0x1f, 8, 1, b't'], "authorization, by its static name");
        assert_eq!((decoder.size(), encoder.size()), (0, 0));
    }

    #[test]
    fn broken_blocks_are_refused() {
        for (why, block) in [
            ("index 0", "80"),
            ("an index beyond both tables", "bf"),
            ("a cut integer", "ff"),
            ("an integer without end", "ffffffffffffff"),
            ("a cut name", "400a6375"),
            ("a cut value", "40016101"),
            ("broken Huffman in a name", "4081000161"),
            ("broken Huffman in a value", "4001618100"),
            ("a table larger than allowed", "3fe21f"),
            ("a size update after a field", "8220"),
        ] {
            let (mut decoder, mut fields) = (Decoder::new(4096), Fields::new());
            assert!(text(&mut decoder, &mut fields, &hex(block)).is_err(), "{why}");
        }
    }

    #[test]
    fn what_is_behind_the_wanted_lines_is_in_the_table_all_the_same() {
        let (mut decoder, mut fields) = (Decoder::new(4096), Fields::new());
        // `a: b`, `:c: d`, `e: f ` with incremental indexing, and `g: h` without.
        let block = [
            0x40, 1, b'a', 1, b'b', 0x40, 2, b':', b'c', 1, b'd', 0x40, 1, b'e', 2, b'f', b' ', 0,
            1, b'g', 1, b'h', 0xbe,
        ];
        let mut lines = 0;
        let only_one = |_: Line<'_>| {
            lines += 1;
            false
        };
        decoder.decode_while(&block, &mut fields, only_one).unwrap();
        assert_eq!((lines, decoder.size()), (1, 3 * 32 + 2 + 3 + 3));
        let seen = text(&mut decoder, &mut fields, &[0xbe, 0xbf, 0x7f, 1, 1, b'x']).unwrap();
        assert_eq!(seen, pairs(&[("e", "f "), (":c", "d"), ("a", "x")]));
        for broken in [&[0xff_u8, 0x80][..], &[0x80], &[0x40, 0x81, 0, 1, b'a']] {
            let block = [&[0x82][..], broken].concat();
            assert!(decoder.decode_while(&block, &mut fields, |_| false).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn unlawful_fields_are_told() {
        for (block, expected) in [
            (&[0, 1, b'A', 0] as &[u8], false),
            (&[0, 0, 1, b'v'], false),
            (&[0, 1, b'a', 2, b'v', b'\n'], false),
            (&[0, 1, b'a', 2, b'v', 0], false),
            (&[0, 1, b'a', 2, b'v', b'\r'], false),
            (&[0, 1, b'a', 2, b'v', b' '], true),
            (&[0, 1, b'a', 2, b'\t', b'v'], true),
            (&[0, 1, b'a', 3, b'v', b' ', 0xff], true),
            // `:path` by its index.
            (&[4, 2, b'/', b' '], false),
            (&[4, 2, b'\t', b'/'], false),
            (&[4, 2, b'/', b'a'], true),
        ] {
            let (mut decoder, mut fields) = (Decoder::new(4096), Fields::new());
            let mut lawful = None;
            decoder
                .decode(block, &mut fields, |line| {
                    if let Line::Moving(moving) = line {
                        lawful = Some(moving.lawful);
                    }
                })
                .unwrap();
            assert_eq!(lawful, Some(expected), "{block:?}");
        }
    }

    #[test]
    fn a_smaller_table_of_the_peer_is_obeyed_and_announced() {
        let (mut decoder, mut encoder, mut fields) =
            (Decoder::new(4096), Encoder::new(4096), Fields::new());
        let field = fields.own("x-long", &"v".repeat(100));
        let mut out = Vec::new();
        encoder.begin(&mut out);
        encoder.known(&field, &mut out);
        text(&mut decoder, &mut fields, &out).unwrap();
        encoder.resize(50);
        encoder.resize(200);
        out.clear();
        encoder.begin(&mut out);
        assert_eq!(out, [0x20 | 0x1f, 50 - 31, 0x20 | 0x1f, 0x80 | ((200 - 31) & 0x7f) as u8, 1]);
        encoder.known(&field, &mut out);
        assert_eq!(text(&mut decoder, &mut fields, &out).unwrap().len(), 1);
        assert_eq!((decoder.size(), encoder.size()), (138, 138));
    }

    proptest! {
        #[test]
        fn what_is_relayed_decodes_to_the_same_elsewhere(
            calls in prop::collection::vec(
                prop::collection::vec((0_usize..12, 0_usize..6, 0_u8..4), 1..12), 1..30),
            sizes in prop::collection::vec(prop::option::of(0_usize..400), 30),
        ) {
            let names = ["x-a", "user-agent", ":path", "grpc-timeout", "b-bin", "te", "x-scope-orgid", "n", "date", "via", "content-type", "x-very-long-name-of-a-field"];
            let values = ["", "v", "trailers", "application/grpc", "a longer value with spaces", "0123456789012345678901234567890123456789"];
            let mut source = Encoder::new(4096);
            let (mut decoder, mut encoder, mut fields) =
                (Decoder::new(4096), Encoder::new(4096), Fields::new());
            let mut judge = loona_hpack::Decoder::new();
            for (call, size) in calls.iter().zip(&sizes) {
                let mut block = Vec::new();
                source.begin(&mut block);
                let mut sent = Vec::new();
                for (name, value, form) in call {
                    sent.push((names[*name].as_bytes().to_vec(), values[*value].as_bytes().to_vec()));
                    let field = fields.own(names[*name], values[*value]);
                    match form {
                        0 | 1 => source.known(&field, &mut block),
                        form => {
                            let literal = Literal::parse(field.literal()).unwrap().0;
                            source.moving(&Moving {
                                name: field.name(), value: literal, length: field.value().len(),
                                lawful: true, never_indexed: *form == 2,
                            }, &mut block);
                        }
                    }
                }
                if let Some(size) = size {
                    encoder.resize(*size);
                }
                let out = relay(&mut decoder, &mut encoder, &mut fields, &block);
                prop_assert_eq!(judge.decode(&out).unwrap(), sent);
            }
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(block: Vec<u8>) {
            let (mut decoder, mut fields) = (Decoder::new(256), Fields::new());
            _ = text(&mut decoder, &mut fields, &block);
            prop_assert!(decoder.size() <= 256);
        }
    }
}
