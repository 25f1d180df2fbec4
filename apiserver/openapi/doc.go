// Package openapi makes the OpenAPI documents of an API server from what it serves: the
// Swagger 2.0 document of /openapi/v2 and one OpenAPI 3.0 document a group-version below /openapi/v3.
//
// The schemas of Kubernetes' types are embedded, compressed, as openapi-gen made them
// (tools/openapi, run by go generate). Documents are made when first asked for, in JSON or protobuf, and kept
// compressed, so that a server that nobody asks spends nothing.
//
//	spec, err := openapi.New("v1.37.2", resources)
//	mux.Handle("/openapi/", spec)
package openapi

//go:generate sh -c "cd ../../tools && go generate ./openapi"
