//! HPACK: any bytes are decoded or refused, the tables stay within their bounds, and what is
//! written of what was decoded decodes to the same, here and in another implementation.

#![no_main]

use libfuzzer_sys::fuzz_target;
use upbeat::http2::{
    field::Fields,
    hpack::{Decoder, Encoder, Line},
};
use upbeat_fuzz::Input;

type Lines = Vec<(Vec<u8>, Vec<u8>)>;

fuzz_target!(init: upbeat_fuzz::seed("hpack"), |bytes: &[u8]| {
    let mut input = Input(bytes);
    let size = usize::from(input.byte()) << 5;
    let (mut fields, mut far_fields) = (Fields::new(), Fields::new());
    let (mut near, mut far) = (Decoder::new(size), Decoder::new(4096));
    let (mut encoder, mut limit) = (Encoder::new(4096), 4096);
    // They know the same of each other's table.
    let (mut judge, mut oracle) = (loona_hpack::Decoder::new(), loona_hpack::Decoder::new());
    oracle.set_max_table_size(size);
    oracle.set_max_allowed_table_size(size);
    while !input.is_empty() {
        let length = usize::from(input.byte());
        if length & 0x80 != 0 {
            limit = usize::from(input.byte()) << 5;
            encoder.resize(limit);
        }
        let block = input.take(length * 2);
        let (mut lines, mut out) = (Lines::new(), Vec::new());
        encoder.begin(&mut out);
        let decoded = near.decode(block, &mut fields, |line| {
            lines.push(text(&line));
            match line {
                Line::Known(field) => encoder.known(field, &mut out),
                Line::Moving(moving) => encoder.moving(&moving, &mut out),
            }
        });
        // Their decoder refuses a size update with nothing behind it, which a block may well be.
        let get = fields.at(2).unwrap();
        encoder.known(get, &mut out);
        let mut said = lines.clone();
        said.push((get.name().plain().to_vec(), get.value().to_vec()));
        assert!(near.size() <= size && encoder.size() <= limit.min(4096));
        // A block that is broken half-way was written half-way: both go on from there.
        let mut again = Lines::new();
        far.decode(&out, &mut far_fields, |line| again.push(text(&line))).unwrap();
        assert_eq!(again, said);
        assert_eq!(far.size(), encoder.size());
        assert_eq!(judge.decode(&out).unwrap(), said);
        if decoded.is_err() {
            break;
        }
        match oracle.decode(block) {
            Ok(theirs) => assert_eq!(theirs, lines),
            // It takes less, as to where size updates may stand.
            Err(_) => break,
        }
    }
});

fn text(line: &Line<'_>) -> (Vec<u8>, Vec<u8>) {
    let mut plain = Vec::new();
    (line.name().plain().to_vec(), line.text(&mut plain).to_vec())
}
