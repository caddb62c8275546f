//! The pure parts, each alone: `cargo bench --bench parts`. A call passes HPACK four times and the
//! router once; what a part costs here is what a call pays for it, without sockets.

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion};
use upbeat::{
    answer::{Answers, HttpCheck},
    config::{self, Config, NotServingAs},
    grpc::{HealthCheckRequest, encode},
    health::Board,
    http2::{
        block::Block,
        connection::{Connection, Context, Role},
        field::Fields,
        frame::{self, Head},
        hpack::{Decoder, Encoder},
        limits::Limits,
    },
    metrics::Metrics,
    route::{Request, Router, Verb},
    upstream::{Changes, Upstream},
};

/// A head as grpc-go's exporter sends it, but for what moves.
const STEADY: [(&str, &str); 8] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
    (":authority", "tempo.example.com:4317"),
    ("content-type", "application/grpc"),
    ("user-agent", "OTel OTLP Exporter Go/1.38.0 grpc-go/1.75.1"),
    ("te", "trailers"),
    ("grpc-accept-encoding", "gzip"),
];

/// Heads' blocks as a client with a table sends them, one after the other.
#[derive(Debug, Clone, Copy)]
enum Heads {
    /// The same in each call: indices only, from the third call on.
    Constant,
    /// With a deadline and a trace context of its own for each call, as literals.
    Varying,
}

impl Heads {
    fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant head",
            Self::Varying => "varying head",
        }
    }

    /// The fields of one call.
    fn block(self, fields: &mut Fields, call: usize) -> Block {
        let mut block = Block::new();
        for (name, value) in STEADY {
            block.push_known(&fields.own(name, value));
        }
        if let Self::Varying = self {
            let texts = [
                ("grpc-timeout", format!("{}u", 9_999_999 - call % 1_000_000)),
                ("traceparent", format!("00-{:032x}-{:016x}-01", call * 0x9e37_79b9, call * 31)),
            ];
            for (name, value) in texts {
                block.push_text(fields.own(name, "").name(), value.as_bytes());
            }
        }
        block
    }

    /// What they are on the wire.
    fn wire(self, count: usize) -> Vec<Vec<u8>> {
        let (mut fields, mut encoder) = (Fields::new(), Encoder::new(4096));
        let mut wire = |call| {
            let mut out = Vec::new();
            self.block(&mut fields, call).write(&mut encoder, &mut out, |_| true);
            out
        };
        (0..count).map(&mut wire).collect()
    }
}

fn frames(bench: &mut Criterion) {
    let head = Head { length: 1024, kind: frame::DATA, flags: frame::END_STREAM, stream: 7 };
    let bytes = head.bytes();
    bench.bench_function("frame: parse a head", |bench| {
        bench.iter(|| Head::parse(black_box(&bytes)));
    });
    let mut out = Vec::with_capacity(64);
    bench.bench_function("frame: write a head", |bench| {
        bench.iter(|| {
            out.clear();
            black_box(head).put(&mut out);
        });
    });
    let payload = vec![7; 1024];
    let mut wire = Vec::new();
    head.put(&mut wire);
    wire.extend_from_slice(&payload);
    let wire = wire.repeat(16);
    // Their stream is long over, as far as this end knows: what it costs to find the frames.
    bench.bench_function("frame: read 16 DATA frames of 1 KiB", |bench| {
        bench.iter_batched_ref(
            client,
            |(connection, context)| {
                let (mut at, mut out) = (0, Vec::new());
                while let Ok(Some(event)) = connection.next(&wire, &mut at, context, &mut out) {
                    black_box(event);
                }
                at
            },
            BatchSize::SmallInput,
        );
    });
}

/// The end of a connection to an endpoint, which has opened a few streams.
fn client() -> (Connection, Context) {
    let (mut context, mut out) = (Context::default(), Vec::new());
    let limits = Limits {
        header_frames: 8,
        streams: 0,
        header_list: 64 << 10,
        header_fields: 100,
        stream_window: 256 << 10,
        connection_window: 8 << 20,
        frames: None,
    };
    let mut connection = Connection::new(Role::Client, limits, &mut out);
    let mut settings = Vec::new();
    frame::put_settings(&[], &mut settings);
    let mut at = 0;
    while let Ok(Some(_)) = connection.next(&settings, &mut at, &mut context, &mut out) {}
    let head = Heads::Constant.block(&mut context.fields, 0);
    for call in 0..4 {
        connection.open(call, &head, true, &mut out);
    }
    (connection, context)
}

fn hpack(bench: &mut Criterion) {
    for heads in [Heads::Constant, Heads::Varying] {
        let wire = heads.wire(64);
        let name = heads.name();
        let (mut fields, mut decoder, mut block) =
            (Fields::new(), Decoder::new(4096), Block::new());
        let mut decode = |wire: &[u8], block: &mut Block| {
            block.clear();
            decoder.decode(wire, &mut fields, |line| block.push(line)).expect("sound");
        };
        // The first ones fill the table.
        wire[..4].iter().for_each(|wire| decode(wire, &mut block));
        let mut calls = wire[4..].iter().cycle();
        bench.bench_function(&format!("HPACK: decode a {name}"), |bench| {
            bench.iter(|| decode(calls.next().expect("endless"), &mut block));
        });
        let (mut encoder, mut out) = (Encoder::new(4096), Vec::with_capacity(512));
        bench.bench_function(&format!("HPACK: encode a {name} by identity"), |bench| {
            bench.iter(|| {
                out.clear();
                black_box(&block).write(&mut encoder, &mut out, |_| true);
            });
        });
    }
}

fn routes(bench: &mut Criterion) {
    let paths = ["/healthz", "/readyz", "/ready"].map(str::to_owned);
    let router = Router::new(&paths, true);
    for (name, verb, path, grpc) in [
        ("an export", Verb::Post, STEADY[2].1, true),
        ("a Check", Verb::Post, "/grpc.health.v1.Health/Check", true),
        ("a GET", Verb::Read, "/healthz?service=otlp", false),
    ] {
        bench.bench_function(&format!("route: {name}"), |bench| {
            bench.iter(|| {
                let path = router.path(black_box(path.as_bytes()));
                router.route(&Request { verb, path, grpc, fault: None })
            });
        });
    }
}

fn answers(bench: &mut Criterion) {
    for services in [1, 1000] {
        let board = board(services);
        let answers = Answers::new(board.subscribe(), NotServingAs::Message, true);
        let last = format!("s{}", services - 1);
        let request = encode(&HealthCheckRequest { service: last.clone() });
        bench.bench_function(&format!("answer: Check, one of {services} services"), |bench| {
            bench.iter(|| answers.check(black_box(&request), None, NotServingAs::Message));
        });
        let query = format!("service={last}");
        bench.bench_function(&format!("answer: GET, one of {services} services"), |bench| {
            bench.iter(|| answers.http(black_box(&asked(&query))));
        });
        bench.bench_function(&format!("answer: GET of all {services} services"), |bench| {
            bench.iter(|| answers.http(black_box(&asked("/healthz"))));
        });
    }
}

fn asked(target: &str) -> HttpCheck<'_> {
    HttpCheck { target, named: false, accept: None }
}

/// A board of one upstream that so many services stand for.
fn board(services: usize) -> Board {
    let text = "{ listeners: [{ name: a, address: '127.0.0.1:0', upstream: u }], upstreams: \
                { u: { endpoints: ['127.0.0.1:1'], probe: { checks: [{ tcp: {} }] } } } }";
    let config = Config::parse(text, |_| None).expect("a good configuration");
    let metrics = Metrics::new();
    let upstream = Arc::new(Upstream::new(&config.upstreams[0], &Changes::default(), &metrics));
    let names = (0..services).map(|number| format!("s{number}")).chain([String::new()]);
    let service = &config.health.services[""];
    let all: BTreeMap<_, _> = names.map(|name| (name, service.clone())).collect();
    let health = config::Health { services: all, ..config.health };
    let board = Board::new(&health, &[upstream], &metrics);
    // Nothing folds here, and what was folded is not to grow old.
    board.vitals().control().end();
    board
}

fn main() {
    // By hand: the macros make public functions without docs.
    let mut bench = Criterion::default().configure_from_args();
    for part in [frames, hpack, routes, answers] {
        part(&mut bench);
    }
    bench.final_summary();
}
