//! What the fuzzers start from.

use std::{env, fs, io, path::Path};

use upbeat::http2::connection::Role;

use crate::{Input, Wire, blocks};

/// Writes a target's seeds to the folder that SEEDS names, where it does. The fuzzer, which calls
/// this before it looks there, has coverage built in and so cannot be another program.
///
/// # Panics
/// The folder cannot be written.
pub fn seed(target: &str) {
    if let Some(folder) = env::var_os("SEEDS") {
        write(target, Path::new(&folder)).expect("SEEDS can be written");
    }
}

fn write(target: &str, folder: &Path) -> io::Result<()> {
    let mut random = fastrand::Rng::with_seed(1);
    fs::create_dir_all(folder)?;
    for number in 0..SEEDS {
        let seed = match target {
            "frame" => frames(&mut random),
            "hpack" => blocks(&mut random),
            _ => script(&mut random),
        };
        fs::write(folder.join(format!("seed-{number}")), seed)?;
    }
    Ok(())
}

/// Bytes, mostly without the bits that mutate.
fn script(random: &mut fastrand::Rng) -> Vec<u8> {
    let mask = [0x7f, 0x3f, 0x1f, 0xff][random.usize(..4)];
    let length = random.usize(20..500);
    let byte = |_| random.u8(..) & if random.u8(..8) == 0 { 0xff } else { mask };
    (0..length).map(byte).collect()
}

fn frames(random: &mut fastrand::Rng) -> Vec<u8> {
    let first = random.u8(..) & !2;
    let role = if first & 1 == 0 { Role::Server } else { Role::Client };
    let mut wire = Wire::new(role);
    let script = script(random);
    let mut input = Input(&script);
    let mut out = vec![first, random.u8(..)];
    while !input.is_empty() && out.len() < 4000 {
        wire.op(&mut input, &mut out);
    }
    out
}

fn blocks(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut out = vec![128];
    for _ in 0..random.usize(1..10) {
        let script = script(random);
        let mut block = Vec::new();
        blocks::block(&mut Input(&script), &mut block);
        block.truncate(254);
        let half = block.len() / 2;
        out.push(half as u8);
        out.extend(&block[..half * 2]);
    }
    out
}

const SEEDS: usize = 100;
