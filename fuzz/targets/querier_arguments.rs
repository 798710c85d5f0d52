#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| thanos_timeshard_fuzz::querier_arguments(input));
