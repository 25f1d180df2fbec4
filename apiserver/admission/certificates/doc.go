// Package certificates has the admission plugins that guard CertificateSigningRequests: CertificateApproval and CertificateSigning ask the
// authorizer whether a user may approve or sign for a signer, and CertificateSubjectRestriction refuses requests for certificates of superusers.
package certificates
