//! From PEM files to a context for handshakes: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, and client certificates if there are
//! authorities for them.

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    AlpnError, SslAcceptor, SslAcceptorBuilder, SslContext, SslMethod, SslOptions, SslVerifyMode,
    select_next_proto,
};
use openssl::stack::Stack;
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;

/// The protocols of ALPN (RFC 7301), preferred first, each with its length.
const PROTOCOLS: &[u8] = b"\x02h2\x08http/1.1";
/// The seconds of a day.
const DAY: i64 = 86_400;

/// The bytes of the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) client_ca: Option<Vec<u8>>,
}

/// What the files make.
pub(super) struct Context {
    pub(super) context: SslContext,
    /// When the certificate expires, in seconds since 1970.
    pub(super) expires: i64,
}

/// Makes a context.
///
/// # Errors
/// Which of the files is wrong, and why.
pub(super) fn build(files: &Files) -> Result<Context, String> {
    let chain = certificates("certificate", &files.certificate)?;
    let key = private_key(&files.key)?;
    let (leaf, intermediates) = chain
        .split_first()
        .ok_or("tls.certificate: no certificate in PEM")?;
    let expires = expiry(leaf).map_err(|error| format!("tls.certificate: {error}"))?;
    let builder = acceptor(leaf, intermediates, &key);
    let mut builder = builder.map_err(|error| format!("tls.certificate, tls.key: {error}"))?;
    if let Some(client_ca) = &files.client_ca {
        let authorities = certificates("client_ca", client_ca)?;
        ask_for_client_certificate(&mut builder, authorities)
            .map_err(|error| format!("tls.client_ca: {error}"))?;
    }
    Ok(Context {
        context: builder.build().into_context(),
        expires,
    })
}

fn certificates(setting: &str, pem: &[u8]) -> Result<Vec<X509>, String> {
    let read = X509::stack_from_pem(pem).map_err(|error| format!("tls.{setting}: {error}"))?;
    if read.is_empty() {
        return Err(format!("tls.{setting}: no certificate in PEM"));
    }
    Ok(read)
}

fn private_key(pem: &[u8]) -> Result<PKey<Private>, String> {
    // Without the callback a passphrase would be asked for on the terminal.
    PKey::private_key_from_pem_callback(pem, |_| Err(ErrorStack::get()))
        // The error is not shown: it may quote the key.
        .map_err(|_| "tls.key: no unencrypted private key in PEM".to_owned())
}

fn acceptor(
    leaf: &X509,
    intermediates: &[X509],
    key: &PKey<Private>,
) -> Result<SslAcceptorBuilder, ErrorStack> {
    // https://wiki.mozilla.org/Security/Server_Side_TLS
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_options(SslOptions::NO_RENEGOTIATION);
    builder.set_certificate(leaf)?;
    for intermediate in intermediates {
        builder.add_extra_chain_cert(intermediate.clone())?;
    }
    builder.set_private_key(key)?;
    builder.check_private_key()?;
    builder.set_alpn_select_callback(|_, offered| {
        select_next_proto(PROTOCOLS, offered).ok_or(AlpnError::ALERT_FATAL)
    });
    Ok(builder)
}

fn ask_for_client_certificate(
    builder: &mut SslAcceptorBuilder,
    authorities: Vec<X509>,
) -> Result<(), ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    let mut names = Stack::new()?;
    for authority in authorities {
        names.push(authority.subject_name().to_owned()?)?;
        store.add_cert(authority)?;
    }
    builder.set_verify_cert_store(store.build())?;
    builder.set_client_ca_list(names);
    // A session that is resumed has the certificate of its first handshake.
    builder.set_session_id_context(b"tollgate")?;
    // A client without a certificate is admitted to the handshake, and needs an API key.
    builder.set_verify(SslVerifyMode::PEER);
    Ok(())
}

fn expiry(certificate: &X509) -> Result<i64, ErrorStack> {
    let left = Asn1Time::from_unix(0)?.diff(certificate.not_after())?;
    Ok(i64::from(left.days) * DAY + i64::from(left.secs))
}
