//! All the ways in which an endpoint is hostile here.

use std::{future::pending, time::Duration};

use tokio::{io::AsyncWriteExt, time::sleep};
use upbeat::http2::frame::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADER_TABLE_SIZE, HEADERS,
    INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE, PING,
    PRIORITY, PUSH_PROMISE, RST_STREAM, WINDOW_UPDATE,
};

use super::peer::Peer;
use crate::fixture::wire::{Form, encode};

/// What an endpoint does to whom calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// GOAWAY with its SETTINGS, and nothing is served.
    GoAwayAtOnce,
    /// GOAWAY for each call, which it says not to have taken, and the end.
    GoAwayUntaken,
    /// The same, with ENHANCE_YOUR_CALM.
    GoAwayCalm,
    /// The same, saying that it has taken the call.
    GoAwayTaken,
    /// GOAWAY, and it stays open and says no more.
    GoAwayStays,
    /// GOAWAY without end.
    GoAwayFlood,
    /// REFUSED_STREAM for each call.
    Refuses,
    ResetAfterHead,
    ResetAfterData,
    ResetAfterMessage,
    /// RST_STREAM hundreds of times for each call.
    ResetFlood,
    /// MAX_CONCURRENT_STREAMS 0.
    NoStreams,
    /// From 100 to 1 to 0 while calls come.
    Shrinking,
    SettingsLate,
    SettingsNever,
    /// 103 without end, one each ms.
    Interim,
    /// The same as fast as can be.
    InterimFlood,
    /// The response's frames, a byte at a time.
    SlowFrames,
    /// A message, a byte each time.
    SlowMessage,
    /// Closes its side once it has a call, and goes on reading.
    HalfClosed,
    /// Open, and reads nothing.
    Swallows,
    /// Reads all, and says nothing.
    Silent,
    ResetsMidFrame,
    ResetsAtOnce,
    ClosesAtOnce,
    /// MAX_FRAME_SIZE below what is lawful.
    TinyFrames,
    /// INITIAL_WINDOW_SIZE 0, and never more.
    NoWindow,
    /// A byte of window at a time.
    ByteWindow,
    /// INITIAL_WINDOW_SIZE above what is lawful.
    VastWindow,
    /// MAX_HEADER_LIST_SIZE 10.
    SmallHeads,
    /// HEADER_TABLE_SIZE 0, then 4 GiB, with each call.
    Tables,
    /// WINDOW_UPDATE 0 on each stream.
    UpdateOfZero,
    /// The same on the connection.
    UpdateOfZeroForAll,
    /// WINDOW_UPDATE past 2^31.
    UpdateOfMuch,
    Garbage,
    Http1,
    /// CONTINUATION without end.
    EndlessHead,
    /// The same, empty ones.
    EmptyContinuations,
    /// A head that begins and does not go on.
    HalfHead,
    /// A head of a MiB.
    VastHead,
    /// One field of 4 KiB, named thousands of times.
    HeadBomb,
    /// Heads with new names, each in the table.
    NewNames,
    /// DATA past every window.
    PastWindow,
    /// A response without end.
    Endless,
    EmptyData,
    PingFlood,
    SettingsFlood,
    PriorityFlood,
    UnknownFlood,
    UpdateFlood,
    Pushes,
    /// Answers on streams that nobody opened.
    WrongStream,
    DataFirst,
    /// Ends without a grpc-status.
    NoStatus,
    /// `:status` twice, upper case, NUL.
    UnlawfulHead,
    /// Its content-length is not that of its body.
    FalseLength,
    /// DATA after the end.
    AfterEnd,
    /// Says that a message has 4 GiB.
    VastMessage,
}

use Way::*;

impl Way {
    /// The bound that ends its connections, where one does.
    pub(super) fn ended_by(self) -> Option<&'static str> {
        match self {
            GoAwayFlood | PingFlood | SettingsFlood | PriorityFlood | UnknownFlood
            | UpdateFlood | EmptyData | InterimFlood => Some("max_upstream_frames"),
            EndlessHead | EmptyContinuations => Some("header_frames"),
            TinyFrames | Pushes | WrongStream | UpdateOfZeroForAll | SettingsNever => {
                Some("protocol_error")
            }
            VastWindow => Some("flow_control_error"),
            Garbage | Http1 => Some("frame_size_error"),
            _ => None,
        }
    }

    /// Whether calls may be answered well all the same.
    pub(super) fn serves(self) -> bool {
        matches!(self, SmallHeads | Shrinking | SettingsLate | Tables | AfterEnd)
    }

    /// Plays it to the end of the connection.
    pub(super) async fn play(self, mut peer: Peer) -> Option<()> {
        let settings: &[(u16, u32)] = match self {
            SettingsLate => {
                sleep(Duration::from_millis(700)).await;
                &[]
            }
            SettingsNever => return peer.idle().await,
            Garbage => {
                let noise: Vec<u8> =
                    std::iter::repeat_with(|| fastrand::u8(..)).take(5000).collect();
                peer.write(&noise).await?;
                return peer.idle().await;
            }
            Http1 => {
                peer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await?;
                return peer.idle().await;
            }
            ResetsAtOnce => {
                peer.reset();
                return None;
            }
            ClosesAtOnce => return None,
            NoStreams => &[(MAX_CONCURRENT_STREAMS, 0)],
            Shrinking => &[(MAX_CONCURRENT_STREAMS, 100)],
            TinyFrames => &[(MAX_FRAME_SIZE, 100)],
            NoWindow | ByteWindow => &[(INITIAL_WINDOW_SIZE, 0)],
            VastWindow => &[(INITIAL_WINDOW_SIZE, u32::MAX)],
            SmallHeads => &[(MAX_HEADER_LIST_SIZE, 10)],
            Tables => &[(HEADER_TABLE_SIZE, 0)],
            _ => &[],
        };
        peer.settle(settings).await?;
        match self {
            GoAwayAtOnce => {
                go_away(&mut peer, 0, 0).await?;
                return peer.idle().await;
            }
            GoAwayFlood => loop {
                go_away(&mut peer, i32::MAX as u32, 0).await?;
            },
            PingFlood => loop {
                peer.send(PING, 0, 0, &[7; 8]).await?;
            },
            SettingsFlood => loop {
                peer.settle(&[(INITIAL_WINDOW_SIZE, fastrand::u32(0..100_000))]).await?;
            },
            PriorityFlood => loop {
                peer.send(PRIORITY, 0, 1, &[0, 0, 0, 0, 7]).await?;
            },
            UnknownFlood => loop {
                peer.send(0xbe, 0xff, 0, &[7; 99]).await?;
            },
            UpdateFlood => loop {
                peer.send(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).await?;
            },
            Swallows => pending().await,
            _ => {}
        }
        let mut streams = 0;
        loop {
            let stream = peer.request().await?;
            streams += 1;
            self.answer(&mut peer, stream, streams).await?;
            if self == ResetsMidFrame {
                peer.reset();
                return None;
            }
        }
    }

    /// Answers a call; none where the connection is to end.
    async fn answer(self, peer: &mut Peer, stream: u32, streams: u32) -> Option<()> {
        let at = stream.to_be_bytes();
        match self {
            GoAwayUntaken => go_away(peer, 0, 0).await.and(None),
            GoAwayCalm => go_away(peer, 0, 11).await.and(None),
            GoAwayTaken => go_away(peer, stream, 2).await.and(None),
            GoAwayStays => {
                go_away(peer, stream, 0).await?;
                peer.idle().await
            }
            Refuses => peer.send(RST_STREAM, 0, stream, &[0, 0, 0, 7]).await,
            ResetAfterHead => {
                peer.head(stream, &[]).await?;
                peer.send(RST_STREAM, 0, stream, &[0, 0, 0, 2]).await
            }
            ResetAfterData => {
                peer.head(stream, &[]).await?;
                peer.send(DATA, 0, stream, &[0, 0, 0, 0, 9, 1]).await?;
                peer.send(RST_STREAM, 0, stream, &[0, 0, 0, 2]).await
            }
            ResetAfterMessage => {
                peer.head(stream, &[]).await?;
                peer.message(stream, &[7; 1000]).await?;
                peer.send(RST_STREAM, 0, stream, &[0, 0, 0, 8]).await
            }
            ResetFlood => {
                for _ in 0..500 {
                    peer.send(RST_STREAM, 0, stream, &[0, 0, 0, 2]).await?;
                }
                Some(())
            }
            Shrinking => {
                peer.settle(&[(MAX_CONCURRENT_STREAMS, u32::from(streams < 20))]).await?;
                well(peer, stream).await
            }
            Interim => loop {
                let block = encode(&[(":status", "103"), ("link", "</style.css>")], &[]);
                peer.send(HEADERS, END_HEADERS, stream, &block).await?;
                sleep(Duration::from_millis(1)).await;
            },
            InterimFlood => loop {
                peer.send(HEADERS, END_HEADERS, stream, &encode(&[(":status", "103")], &[]))
                    .await?;
            },
            SlowFrames => {
                let block =
                    encode(&[(":status", "200"), ("content-type", "application/grpc")], &[]);
                let mut bytes = Vec::new();
                crate::fixture::frames::put(HEADERS, END_HEADERS, stream, &block, &mut bytes);
                for byte in bytes {
                    peer.write(&[byte]).await?;
                    sleep(Duration::from_millis(100)).await;
                }
                Some(())
            }
            SlowMessage => {
                peer.head(stream, &[]).await?;
                peer.send(DATA, 0, stream, &[0, 0, 0, 3, 0]).await?;
                loop {
                    peer.send(DATA, 0, stream, &[7]).await?;
                    sleep(Duration::from_millis(20)).await;
                }
            }
            HalfClosed => {
                peer.socket.shutdown().await.ok()?;
                peer.idle().await
            }
            ResetsMidFrame => {
                peer.head(stream, &[]).await?;
                // The head of a frame of 100 bytes, and ten of them.
                let part = [&[0, 0, 100, DATA, 0][..], &at, &[0; 10]].concat();
                peer.write(&part).await
            }
            NoWindow | Silent => Some(()),
            ByteWindow => {
                peer.send(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1]).await?;
                loop {
                    let (head, _) = peer.frame().await?;
                    if [DATA, HEADERS].contains(&head.kind) {
                        peer.send(WINDOW_UPDATE, 0, head.stream, &[0, 0, 0, 1]).await?;
                    }
                }
            }
            Tables => {
                peer.settle(&[(HEADER_TABLE_SIZE, u32::MAX)]).await?;
                peer.settle(&[(HEADER_TABLE_SIZE, 0)]).await?;
                well(peer, stream).await
            }
            UpdateOfZero => peer.send(WINDOW_UPDATE, 0, stream, &[0; 4]).await,
            UpdateOfZeroForAll => peer.send(WINDOW_UPDATE, 0, 0, &[0; 4]).await,
            UpdateOfMuch => {
                peer.send(WINDOW_UPDATE, 0, stream, &[0x7f, 255, 255, 255]).await?;
                peer.send(WINDOW_UPDATE, 0, stream, &[0x7f, 255, 255, 255]).await
            }
            EndlessHead | EmptyContinuations => {
                let part = encode(&[("x", "v".repeat(1000))], &[]);
                let part = if self == EndlessHead { &part[..] } else { &[] };
                peer.send(HEADERS, 0, stream, &[0x88]).await?;
                loop {
                    peer.send(CONTINUATION, 0, stream, part).await?;
                }
            }
            HalfHead => {
                peer.send(HEADERS, 0, stream, &[0x88]).await?;
                pending().await
            }
            VastHead => {
                peer.send(HEADERS, 0, stream, &[0x88]).await?;
                let part = encode(&vec![("x", "v".repeat(1000)); 15], &[]);
                for _ in 0..70 {
                    peer.send(CONTINUATION, 0, stream, &part).await?;
                }
                peer.send(CONTINUATION, END_HEADERS, stream, &[]).await
            }
            HeadBomb => {
                let mut block = vec![0x88];
                block.extend(encode(&[("x", "v".repeat(3900))], &[Form::Incremental]));
                block.resize(16_000, 0xbe);
                peer.send(HEADERS, END_HEADERS, stream, &block).await
            }
            NewNames => {
                let name = format!("x-{}-{}", fastrand::u64(..), "n".repeat(3000));
                let mut block =
                    encode(&[(":status", "200"), ("content-type", "application/grpc")], &[]);
                block.extend(encode(&[(name, "")], &[Form::Incremental]));
                peer.send(HEADERS, END_HEADERS | END_STREAM, stream, &block).await
            }
            PastWindow | Endless => {
                peer.head(stream, &[]).await?;
                peer.send(DATA, 0, stream, &[0, 0, 255, 0, 0]).await?;
                let pause = if self == PastWindow { 0 } else { 3 };
                loop {
                    peer.send(DATA, 0, stream, &[7; 1000]).await?;
                    sleep(Duration::from_millis(pause)).await;
                }
            }
            EmptyData => {
                peer.head(stream, &[]).await?;
                loop {
                    peer.send(DATA, 0, stream, &[]).await?;
                }
            }
            Pushes => {
                let block = encode(&[(":method", "GET"), (":path", "/"), (":scheme", "http")], &[]);
                let promise = [&[0, 0, 0, 2][..], &block].concat();
                peer.send(PUSH_PROMISE, END_HEADERS, stream, &promise).await
            }
            WrongStream => {
                peer.head(stream + 100, &[]).await?;
                peer.trailers(stream + 100).await
            }
            DataFirst => {
                peer.message(stream, &[7]).await?;
                peer.trailers(stream).await
            }
            NoStatus => {
                peer.head(stream, &[]).await?;
                peer.send(DATA, END_STREAM, stream, &[]).await
            }
            UnlawfulHead => {
                let heads = [
                    vec![(":status", "200"), (":status", "200")],
                    vec![(":status", "200"), ("X-Upper", "1")],
                    vec![(":status", "200"), ("x", "a\0b\r\nc: d")],
                    vec![(":status", "two hundred")],
                    vec![("x", "1")],
                    vec![(":status", "200"), ("connection", "close")],
                ];
                let head = &heads[streams as usize % heads.len()];
                peer.send(HEADERS, END_HEADERS, stream, &encode(head, &[])).await
            }
            FalseLength => {
                peer.head(stream, &[("content-length", "3")]).await?;
                peer.message(stream, &[7; 10]).await?;
                peer.trailers(stream).await
            }
            AfterEnd => {
                well(peer, stream).await?;
                for _ in 0..20 {
                    peer.message(stream, &[7; 10]).await?;
                }
                Some(())
            }
            VastMessage => {
                peer.head(stream, &[]).await?;
                peer.send(DATA, 0, stream, &[0, 255, 255, 255, 255, 1]).await
            }
            _ => well(peer, stream).await,
        }
    }
}

/// Answers as it should.
async fn well(peer: &mut Peer, stream: u32) -> Option<()> {
    peer.head(stream, &[]).await?;
    peer.message(stream, &[7]).await?;
    peer.trailers(stream).await
}

async fn go_away(peer: &mut Peer, last: u32, code: u8) -> Option<()> {
    let payload = [&last.to_be_bytes()[..], &[0, 0, 0, code]].concat();
    peer.send(GOAWAY, 0, 0, &payload).await
}
