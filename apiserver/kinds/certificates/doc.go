// Package certificates declares the kind of API group certificates.k8s.io: CertificateSigningRequest, version v1, with its approval and status
// subresources.
//
// Who may approve and sign for which signer is for the admission plugins CertificateApproval and CertificateSigning to say.
package certificates
