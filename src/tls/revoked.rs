//! Mistakes in lists of revoked certificates (CRL) that the check of certificates does not tell.

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::crl::IssuingDistributionPoint;
use x509_cert::name::Name;

/// Checks that each authority has one list. Without one, each of its certificates would be refused; of two, only the first
/// would count, and it may be the old one.
pub(super) fn check(
    authorities: &[CertificateDer<'_>],
    lists: &[CertificateRevocationListDer<'_>],
) -> Result<(), String> {
    let lists = lists.iter().map(|list| CertificateList::from_der(list));
    let lists = lists.collect::<Result<Vec<_>, _>>();
    let lists = lists.map_err(|error| format!("not a list of revoked certificates: {error}"))?;
    let issuers: Vec<&Name> = lists
        .iter()
        .map(|list| &list.tbs_cert_list.issuer)
        .collect();
    for (index, list) in lists.iter().enumerate() {
        let issuer = issuers[index];
        if issuers[..index].contains(&issuer) && !is_part(list) {
            return Err(format!(
                "has two lists of {issuer}, and only the first would count"
            ));
        }
    }
    for authority in authorities {
        // One that cannot be read here was taken as an authority all the same.
        let Ok(authority) = Certificate::from_der(authority) else {
            continue;
        };
        let name = &authority.tbs_certificate.subject;
        if !issuers.contains(&name) {
            return Err(format!(
                "has no list of {name}, so each certificate of it would be refused"
            ));
        }
    }
    Ok(())
}

/// Returns whether a list has only a part of the revoked certificates of its authority.
fn is_part(list: &CertificateList) -> bool {
    let extensions = list.tbs_cert_list.crl_extensions.iter().flatten();
    let mut ids = extensions.map(|extension| extension.extn_id);
    ids.any(|id| id == <IssuingDistributionPoint as x509_cert::der::oid::AssociatedOid>::OID)
}
