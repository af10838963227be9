#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = countersign_fuzzed::identity_token(bytes);
});
