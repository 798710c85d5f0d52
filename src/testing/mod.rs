//! What the unit tests of several modules share.

#[cfg(feature = "cli")]
pub(crate) mod api_server;

use proptest::test_runner::Config;

/// Cases that proptest runs by default.
const DEFAULT: u32 = 256;

/// A property that runs so many cases. `PROPTEST_CASES=2560` runs ten times as many, as it does for
/// properties without a number of their own.
pub(crate) fn cases(usual: u32) -> Config {
    let wanted = u64::from(Config::default().cases) * u64::from(usual) / u64::from(DEFAULT);
    Config::with_cases(u32::try_from(wanted).unwrap_or(u32::MAX).max(1))
}
