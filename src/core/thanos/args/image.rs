//! Whether an image's reference names Thanos, and a version whose store has time flags.

/// Whether the last path component of an image names Thanos; tag and digest are ignored.
#[must_use]
pub fn image_is_thanos(image: &str) -> bool {
    let without_digest = image.split('@').next().unwrap_or(image);
    let last = without_digest.rsplit('/').next().unwrap_or(without_digest);
    last.split(':').next().unwrap_or(last).contains("thanos")
}

/// Whether an image's tag is a version of Thanos before 0.7, the first whose store has time flags.
#[must_use]
pub fn image_is_too_old(image: &str) -> bool {
    const FIRST_MINOR: u32 = 7;
    let without_digest = image.split('@').next().unwrap_or(image);
    let last = without_digest.rsplit('/').next().unwrap_or(without_digest);
    let tag = last
        .split_once(':')
        .filter(|_| image_is_thanos(image))
        .map_or("", |(_, tag)| tag);
    let mut numbers = tag
        .strip_prefix('v')
        .unwrap_or(tag)
        .split(['.', '-', '+', '_']);
    numbers.next() == Some("0")
        && numbers
            .next()
            .and_then(|minor| minor.parse::<u32>().ok())
            .is_some_and(|minor| minor < FIRST_MINOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_by_their_last_component() {
        for (image, thanos) in [
            ("quay.io/thanos/thanos:v0.42.4", true),
            ("thanos", true),
            ("localhost:5000/x/my-thanos-build@sha256:00", true),
            ("quay.io/thanos/busybox:thanos", false),
            ("localhost:5000/busybox", false),
            ("", false),
        ] {
            assert_eq!(image_is_thanos(image), thanos, "{image}");
        }
    }

    #[test]
    fn versions_without_time_flags_are_recognised_by_their_tag() {
        for (image, old) in [
            ("quay.io/thanos/thanos:v0.6.1", true),
            ("improbable/thanos:v0.5.0-rc.0", true),
            ("x:5000/thanos:0.3.2@sha256:00", true),
            ("quay.io/thanos/thanos:v0.7.0", false),
            ("quay.io/thanos/thanos:v0.42.4", false),
            ("bitnami/thanos:0.40.1-debian-12-r1", false),
            ("quay.io/thanos/thanos:main-2026-01-01-abc", false),
            ("x:5000/thanos", false),
            ("quay.io/other/store:v0.1.0", false),
            ("thanos:v1.0.0", false),
        ] {
            assert_eq!(image_is_too_old(image), old, "{image}");
        }
    }
}
