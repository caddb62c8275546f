//! HPACK as others write it: every block of the public stories decodes to its fields, and what our
//! encoder makes of it decodes to the same elsewhere.
//!
//! The stories are not part of the repository: `HPACK_STORIES` names their directory, which holds
//! `*/story_*.json` (github.com/http2jp/hpack-test-case). Without it the examples of RFC 7541,
//! Appendix C, stand in.

use std::{env, fs, path::Path};

use serde_json::Value;
use upbeat::http2::{
    field::Fields,
    hpack::{Decoder, Encoder, Line},
};

type List = Vec<(Vec<u8>, Vec<u8>)>;

/// One compression context.
struct Story {
    name: String,
    /// The largest table that its encoder was told it may use.
    table: usize,
    cases: Vec<(Vec<u8>, List)>,
}

/// How the table of the relay's peer changes along a story.
type Sizes = fn(usize) -> Option<usize>;

#[test]
fn every_story_means_its_fields_before_and_after_the_relay() {
    let stories = match env::var_os("HPACK_STORIES") {
        Some(directory) => {
            let stories = load(Path::new(&directory));
            assert!(!stories.is_empty(), "no */story_*.json in {}", directory.display());
            stories
        }
        None => {
            println!("HPACK_STORIES is unset: the examples of RFC 7541, Appendix C, alone");
            appendix()
        }
    };
    let sizes: [Sizes; 4] = [
        |_| None,
        |case| (case == 0).then_some(0),
        |case| Some([4096, 0, 100, 65_536, 4095, 33][case % 6]),
        |case| (case % 3 == 1).then_some(64 << (case % 7)),
    ];
    let mut blocks = 0;
    for story in &stories {
        for sizes in sizes {
            relay(story, sizes);
        }
        blocks += story.cases.len();
    }
    println!("{} stories, {blocks} blocks", stories.len());
    assert!(blocks > stories.len());
}

/// Takes a story through a decoder and an encoder, line by line, to another decoder.
fn relay(story: &Story, sizes: Sizes) {
    let (mut decoder, mut encoder, mut fields) =
        (Decoder::new(story.table), Encoder::new(4096), Fields::new());
    let mut judge = loona_hpack::Decoder::new();
    let mut allowed = 4096;
    for (number, (wire, list)) in story.cases.iter().enumerate() {
        if let Some(size) = sizes(number) {
            encoder.resize(size);
            allowed = size;
        }
        judge.set_max_allowed_table_size(allowed);
        let (mut seen, mut out) = (List::new(), Vec::new());
        encoder.begin(&mut out);
        let decoded = decoder.decode(wire, &mut fields, |line| {
            let mut plain = Vec::new();
            seen.push((line.name().plain().to_vec(), line.text(&mut plain).to_vec()));
            match line {
                Line::Known(field) => encoder.known(field, &mut out),
                Line::Moving(moving) => encoder.moving(&moving, &mut out),
            }
        });
        let place = format!("{}, block {number}", story.name);
        assert!(decoded.is_ok(), "{place} is refused");
        assert_eq!(&seen, list, "{place}");
        assert!(encoder.size() <= allowed.min(4096), "{place}: a table beyond the peer's");
        let again = judge.decode(&out).unwrap_or_else(|error| panic!("{place}: {error:?}"));
        assert_eq!(&again, list, "{place}, relayed");
    }
}

fn load(directory: &Path) -> Vec<Story> {
    let entries = |path: &Path| {
        let mut found: Vec<_> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        found
    };
    let mut stories = Vec::new();
    for folder in entries(directory).iter().filter(|path| path.is_dir()) {
        for file in entries(folder) {
            let name = file.file_name().unwrap().to_string_lossy();
            if name.starts_with("story_") && name.ends_with(".json") {
                let text = fs::read_to_string(&file).unwrap();
                let story = serde_json::from_str(&text).unwrap();
                stories.push(read(file.display().to_string(), &story));
            }
        }
    }
    stories
}

fn read(name: String, story: &Value) -> Story {
    let mut table = 4096;
    let mut cases = Vec::new();
    for case in story["cases"].as_array().unwrap() {
        if let Some(size) = case["header_table_size"].as_u64() {
            table = table.max(size as usize);
        }
        let headers = case["headers"].as_array().unwrap();
        let list = headers.iter().flat_map(|field| field.as_object().unwrap());
        let text = |value: &Value| value.as_str().unwrap().as_bytes().to_vec();
        let list = list.map(|(name, value)| (name.as_bytes().to_vec(), text(value))).collect();
        cases.push((hex(case["wire"].as_str().unwrap()), list));
    }
    assert!(!cases.is_empty(), "{name} has no cases");
    Story { name, table, cases }
}

fn hex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

/// RFC 7541, C.3 to C.6.
fn appendix() -> Vec<Story> {
    let requests = [
        ":method GET|:scheme http|:path /|:authority www.example.com",
        ":method GET|:scheme http|:path /|:authority www.example.com|cache-control no-cache",
        ":method GET|:scheme https|:path /index.html|:authority www.example.com|custom-key custom-value",
    ];
    let responses = [
        ":status 302|cache-control private|date Mon, 21 Oct 2013 20:13:21 GMT|location https://www.example.com",
        ":status 307|cache-control private|date Mon, 21 Oct 2013 20:13:21 GMT|location https://www.example.com",
        ":status 200|cache-control private|date Mon, 21 Oct 2013 20:13:22 GMT|location https://www.example.com|content-encoding gzip|set-cookie foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    ];
    let story = |name: &str, table, wires: [&str; 3], lists: [&str; 3]| Story {
        name: name.to_owned(),
        table,
        cases: wires.iter().zip(lists).map(|(wire, list)| (hex(wire), fields(list))).collect(),
    };
    vec![
        story(
            "C.3",
            4096,
            [
                "828684410f7777772e6578616d706c652e636f6d",
                "828684be58086e6f2d6361636865",
                "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
            ],
            requests,
        ),
        story(
            "C.4",
            4096,
            [
                "828684418cf1e3c2e5f23a6ba0ab90f4ff",
                "828684be5886a8eb10649cbf",
                "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
            ],
            requests,
        ),
        story(
            "C.5",
            256,
            [
                "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
                "4803333037c1c0bf",
                "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
            ],
            responses,
        ),
        story(
            "C.6",
            256,
            [
                "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
                "4883640effc1c0bf",
                "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
            ],
            responses,
        ),
    ]
}

fn fields(list: &str) -> List {
    let pairs = list.split('|').map(|field| field.split_once(' ').unwrap());
    pairs.map(|(name, value)| (name.into(), value.into())).collect()
}
