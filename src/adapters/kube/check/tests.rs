//! Certificates are verified as the API server does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::ask::escaped;
use super::certificates::{bundle, chain, shown, verify};
use crate::core::check::Trouble;

const HOST: &str = "timeshard.timeshard-system.svc";
/// 2026-11-21T12:00:00Z.
const NOW: i64 = 1_795_262_400;

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    (params.not_before, params.not_after) = (
        rcgen::date_time_ymd(2026, 1, 1),
        rcgen::date_time_ymd(2036, 1, 1),
    );
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(name: &str, year: i32, by: &CertifiedIssuer<'static, KeyPair>) -> String {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (
        rcgen::date_time_ymd(year - 1, 1, 1),
        rcgen::date_time_ymd(year, 1, 1),
    );
    STANDARD.encode(
        params
            .signed_by(&KeyPair::generate().unwrap(), by)
            .unwrap()
            .pem(),
    )
}

fn trouble(leaf: &str, trusted: &CertifiedIssuer<'static, KeyPair>) -> Option<Trouble> {
    let bundle = bundle(&STANDARD.encode(trusted.pem())).unwrap();
    verify("x".to_owned(), &chain(leaf).unwrap(), &bundle, HOST, NOW)
        .unwrap()
        .trouble
}

#[test]
fn a_certificate_is_verified_by_issuer_name_and_time() {
    // The same name with another key is another authority.
    let (ours, other) = (authority("ca"), authority("ca"));
    assert_eq!(trouble(&leaf(HOST, 2027, &ours), &ours), None);
    assert_eq!(
        trouble(&leaf(HOST, 2027, &ours), &other),
        Some(Trouble::UnknownIssuer)
    );
    assert_eq!(
        trouble(&leaf(HOST, 2027, &ours), &authority("another")),
        Some(Trouble::UnknownIssuer)
    );
    assert_eq!(
        trouble(&leaf("elsewhere", 2027, &ours), &ours),
        Some(Trouble::OtherName)
    );
    assert_eq!(
        trouble(&leaf(HOST, 2026, &ours), &ours),
        Some(Trouble::Expired)
    );
    assert_eq!(
        trouble(&leaf(HOST, 2030, &ours), &ours),
        Some(Trouble::NotYetValid)
    );
}

#[test]
fn a_certificate_that_is_its_own_authority_is_trusted() {
    for is_ca in [IsCa::Ca(BasicConstraints::Unconstrained), IsCa::NoCa] {
        let mut params = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
        params.is_ca = is_ca;
        (params.not_before, params.not_after) = (
            rcgen::date_time_ymd(2026, 1, 1),
            rcgen::date_time_ymd(2027, 1, 1),
        );
        let own = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        assert_eq!(trouble(&STANDARD.encode(own.pem()), &own), None);
        let bundle = bundle(&STANDARD.encode(own.pem())).unwrap();
        let elsewhere = verify(
            "x".to_owned(),
            &chain(&STANDARD.encode(own.pem())).unwrap(),
            &bundle,
            "elsewhere",
            NOW,
        )
        .unwrap();
        assert_eq!(elsewhere.trouble, Some(Trouble::OtherName));
        assert_eq!(
            trouble(&STANDARD.encode(own.pem()), &authority("ca")),
            Some(Trouble::UnknownIssuer)
        );
    }
}

#[test]
fn an_invalid_bundle_is_refused_with_a_reason() {
    for (text, why) in [
        ("", "it is empty"),
        ("%", "not base64"),
        ("aGVsbG8=", "no certificate"),
    ] {
        let Err(refusal) = bundle(text) else {
            panic!("{text:?} is taken")
        };
        assert!(refusal.contains(why), "{refusal}");
    }
    let broken =
        STANDARD.encode("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n");
    let Err(refusal) = bundle(&broken) else {
        panic!("it is taken")
    };
    assert!(refusal.contains("not X.509"), "{refusal}");
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_named() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let why = shown("127.0.0.1", closed.port(), HOST).await.unwrap_err();
    assert!(
        why.starts_with(&format!("127.0.0.1:{}: ", closed.port())),
        "{why}"
    );
}

#[test]
fn queries_are_escaped() {
    assert_eq!(escaped("a/b=c,d e_é"), "a%2Fb%3Dc%2Cd%20e_%C3%A9");
}
