//! The Huffman code of header strings (RFC 7541, 5.2 and Appendix B).
//!
//! The code is canonical: within one length, codes ascend with their symbols. So the lengths are
//! the whole table, and both directions are made from them when the program is compiled. Decoding
//! takes half a byte at a time; the shortest code has five bits, so that yields one symbol at most.

/// A string that no encoder makes: a code that does not exist, EOS, or padding that is too long or
/// not all ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid;

/// Appends what `coded` stands for.
///
/// # Errors
/// [`Invalid`]; what was appended until then stays.
pub fn decode(coded: &[u8], plain: &mut Vec<u8>) -> Result<(), Invalid> {
    walk(coded, |symbol| plain.push(symbol))
}

/// Hands the symbols of `coded` out one by one.
///
/// # Errors
/// [`Invalid`], after the symbols before it.
#[inline]
pub fn walk(coded: &[u8], mut symbol: impl FnMut(u8)) -> Result<(), Invalid> {
    let mut state = 0;
    for byte in coded {
        for nibble in [byte >> 4, byte & 15] {
            let step = DECODE[state][nibble as usize];
            if step.flags & YIELDS != 0 {
                symbol(step.symbol);
            } else if step.flags & FAILS != 0 {
                return Err(Invalid);
            }
            state = step.next as usize;
        }
    }
    if MAY_END[state] { Ok(()) } else { Err(Invalid) }
}

/// How many bytes [`encode`] appends for `plain`.
pub fn encoded_len(plain: &[u8]) -> usize {
    let bits: usize = plain.iter().map(|symbol| LENGTHS[*symbol as usize] as usize).sum();
    bits.div_ceil(8)
}

/// Appends the code of `plain`, padded with ones.
pub fn encode(plain: &[u8], coded: &mut Vec<u8>) {
    let (mut pending, mut bits) = (0_u64, 0);
    for symbol in plain {
        let symbol = *symbol as usize;
        bits += LENGTHS[symbol] as u32;
        pending = pending << LENGTHS[symbol] | u64::from(CODES[symbol]);
        while bits >= 8 {
            bits -= 8;
            coded.push((pending >> bits) as u8);
        }
    }
    if bits > 0 {
        coded.push((pending << (8 - bits)) as u8 | (0xff >> bits));
    }
}

/// One step of the decoder.
#[derive(Clone, Copy)]
struct Step {
    next: u8,
    symbol: u8,
    flags: u8,
}

const YIELDS: u8 = 1;
const FAILS: u8 = 2;
const EOS: usize = 256;

static CODES: [u32; 257] = codes();

/// Codes from lengths: shorter ones first, within a length by symbol.
const fn codes() -> [u32; 257] {
    let mut codes = [0; 257];
    let (mut code, mut length) = (0, 1);
    while length <= 30 {
        let mut symbol = 0;
        while symbol <= EOS {
            if LENGTHS[symbol] == length {
                codes[symbol] = code;
                code += 1;
            }
            symbol += 1;
        }
        code <<= 1;
        length += 1;
    }
    codes
}

/// The code as a tree: 256 inner nodes, their children inner nodes, or symbols from `LEAF` on.
const fn tree() -> [[u16; 2]; 256] {
    let codes = codes();
    let mut tree = [[0; 2]; 256];
    let (mut nodes, mut symbol) = (1, 0);
    while symbol <= EOS {
        let (mut node, mut bit) = (0, LENGTHS[symbol]);
        while bit > 0 {
            bit -= 1;
            let side = (codes[symbol] >> bit & 1) as usize;
            if bit == 0 {
                tree[node][side] = LEAF + symbol as u16;
            } else {
                if tree[node][side] == 0 {
                    tree[node][side] = nodes;
                    nodes += 1;
                }
                node = tree[node][side] as usize;
            }
        }
        symbol += 1;
    }
    tree
}

const LEAF: u16 = 256;

/// From each inner node, what four more bits lead to.
static DECODE: [[Step; 16]; 256] = {
    let tree = tree();
    let mut decode = [[Step { next: 0, symbol: 0, flags: 0 }; 16]; 256];
    let mut state = 0;
    while state < 256 {
        let mut nibble = 0;
        while nibble < 16 {
            let (mut node, mut bit) = (state, 4);
            let mut step = Step { next: 0, symbol: 0, flags: 0 };
            while bit > 0 {
                bit -= 1;
                let child = tree[node][nibble >> bit & 1];
                if child == LEAF + EOS as u16 {
                    step.flags = FAILS;
                    node = 0;
                } else if child >= LEAF {
                    step.symbol = (child - LEAF) as u8;
                    step.flags |= YIELDS;
                    node = 0;
                } else {
                    node = child as usize;
                }
            }
            if step.flags & FAILS != 0 {
                step.flags = FAILS;
            }
            step.next = node as u8;
            decode[state][nibble] = step;
            nibble += 1;
        }
        state += 1;
    }
    decode
};

/// Nodes at which a string may end: the root, and up to seven ones below it.
static MAY_END: [bool; 256] = {
    let tree = tree();
    let mut may_end = [false; 256];
    let (mut node, mut ones) = (0, 0);
    while ones <= 7 {
        may_end[node] = true;
        node = tree[node][1] as usize;
        ones += 1;
    }
    may_end
};

/// Bits of each symbol's code; the last one is EOS.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
     6, 10, 10, 12, 13,  6,  8, 11, 10, 10,  8, 11,  8,  6,  6,  6,
     5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8, 15,  6, 12, 10,
    13,  6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
     7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8, 13, 19, 13, 14,  6,
    15,  5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,
     6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn strings_of_the_rfc() {
        // RFC 7541, C.4 and C.6.
        for (plain, coded) in [
            ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
            ("no-cache", "a8eb10649cbf"),
            ("custom-key", "25a849e95ba97d7f"),
            ("custom-value", "25a849e95bb8e8b4bf"),
            ("302", "6402"),
            ("private", "aec3771a4b"),
            ("Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff"),
            ("", ""),
        ] {
            let mut out = Vec::new();
            encode(plain.as_bytes(), &mut out);
            assert_eq!(out, hex(coded), "{plain}");
            assert_eq!(encoded_len(plain.as_bytes()), out.len());
            let mut back = Vec::new();
            assert_eq!(decode(&out, &mut back), Ok(()));
            assert_eq!(back, plain.as_bytes());
        }
    }

    #[test]
    fn what_no_encoder_makes_is_refused() {
        for (why, coded) in [
            ("padding of zeros", "00"),
            ("padding of eight ones", "f1e3c2e5f23a6ba0ab90f4ffff"),
            ("EOS", "fffffffc"),
            ("EOS and more", "3fffffffff"),
            ("a code that is cut", "fffe"),
        ] {
            assert_eq!(decode(&hex(coded), &mut Vec::new()), Err(Invalid), "{why}");
        }
    }

    #[test]
    fn codes_are_complete() {
        // Kraft's sum of a complete code is one.
        let sum: u64 = LENGTHS.iter().map(|length| 1 << (30 - length)).sum();
        assert_eq!(sum, 1 << 30);
        assert_eq!(CODES[EOS], 0x3fff_ffff);
    }

    proptest! {
        #[test]
        fn every_string_comes_back(plain: Vec<u8>) {
            let (mut coded, mut back) = (Vec::new(), Vec::new());
            encode(&plain, &mut coded);
            prop_assert_eq!(decode(&coded, &mut back), Ok(()));
            prop_assert_eq!(back, plain);
        }

        #[test]
        fn what_decodes_is_what_its_encoder_made(coded: Vec<u8>) {
            let (mut plain, mut again) = (Vec::new(), Vec::new());
            if decode(&coded, &mut plain).is_ok() {
                encode(&plain, &mut again);
                prop_assert_eq!(again, coded);
            }
        }
    }
}
