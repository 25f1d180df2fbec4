// Package apistorage runs the tests that k8s.io/apiserver exports for its storage,
// k8s.io/apiserver/pkg/storage/testing, over its etcd3 storage on stores that are served by store/etcdserve.
//
// Not run are RunTestGetListWithErrorAggregation, RunTestGetListWithoutErrorAggregation and
// RunTestWatchWithUnsafeDelete, which need an error of a type that etcd3 does not export; RunTestStats with sizes, which
// needs an unexported method of it; RunTestOptionalWatchBookmarksWithCorrectResourceVersion, which is for the watch
// cache only, etcd3 fails it on an etcd too; and the benchmarks.
package apistorage
