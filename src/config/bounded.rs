//! Files that are read while the process serves.

use std::{
    fs,
    io::{Error, Read, Result},
    path::Path,
};

/// What is in the file at `path`, of at most `most` bytes.
///
/// # Errors
/// It cannot be read, is larger, or is no file: a pipe would wait for its writer.
pub fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(Error::other("it is not a regular file"));
    }
    let mut content = Vec::new();
    fs::File::open(path)?.take(most + 1).read_to_end(&mut content)?;
    match content.len() as u64 > most {
        true => Err(Error::other(format!("it has more than {most} bytes"))),
        false => Ok(content),
    }
}

/// The largest file of credentials, certificates or revocations that is read, in bytes.
pub const LARGEST: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_of_bounded_size_is_read() {
        let path = std::env::temp_dir().join(format!("upbeat-{}-bounded", std::process::id()));
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
        let why = read_bounded(&path, 4).unwrap_err().to_string();
        assert_eq!(why, "it has more than 4 bytes");
        fs::remove_file(&path).unwrap();
        let why = read_bounded(Path::new("/dev/zero"), 4).unwrap_err().to_string();
        assert_eq!(why, "it is not a regular file");
    }
}
