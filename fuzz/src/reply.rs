//! Any bytes as the body of a reply: decoding comes to an end, without a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| reverse_etl::emarsys::fuzzing::decode(body));
