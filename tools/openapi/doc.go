// Package main exports the OpenAPI definitions of Kubernetes' types as the data that
// apiserver/openapi embeds.
//
// Run it from the tools module with go generate ./openapi: openapi-gen turns the types'
// markers and comments into Go (left uncommitted in definitions/, 5 MB of source), which this
// program evaluates once, so that servers carry compressed JSON instead of a thousand functions.
package main

//go:generate go tool openapi-gen --output-dir definitions --output-pkg github.com/keelson/keelson/tools/openapi/definitions --output-file zz_generated.openapi.go --go-header-file header.txt --report-filename definitions/violations.txt k8s.io/api/core/v1 k8s.io/api/apps/v1 k8s.io/api/batch/v1 k8s.io/api/autoscaling/v1 k8s.io/api/autoscaling/v2 k8s.io/api/policy/v1 k8s.io/api/networking/v1 k8s.io/api/rbac/v1 k8s.io/api/storage/v1 k8s.io/api/scheduling/v1 k8s.io/api/scheduling/v1alpha3 k8s.io/api/scheduling/v1beta1 k8s.io/api/node/v1 k8s.io/api/certificates/v1 k8s.io/api/coordination/v1 k8s.io/api/discovery/v1 k8s.io/api/events/v1 k8s.io/api/authentication/v1 k8s.io/api/authorization/v1 k8s.io/api/admissionregistration/v1 k8s.io/api/resource/v1 k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1 k8s.io/apimachinery/pkg/apis/meta/v1 k8s.io/apimachinery/pkg/runtime k8s.io/apimachinery/pkg/version k8s.io/apimachinery/pkg/api/resource k8s.io/apimachinery/pkg/util/intstr
//go:generate go run -tags generate . ../../apiserver/openapi
