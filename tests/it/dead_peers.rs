//! Endpoints that die without a word, and ones that close in the middle of what they say.

mod cut;
