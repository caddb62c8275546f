//! The house: which floor each module is on and may import, what a class is spread over, and how
//! things are called. Lists of what is not so yet only shrink.
//!
//! ```text
//! floors  files     who may import whom; what each file may be
//! calls             which files of one class call each other
//! names  words      types; documentation
//! source            the code, parsed
//! ```

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod files;
mod floors;
mod names;
mod source;
mod words;
