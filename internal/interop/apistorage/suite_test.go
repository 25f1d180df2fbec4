package apistorage

import (
	"context"
	"testing"

	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	storagefeature "k8s.io/apiserver/pkg/storage/feature"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/featuregate"
	featuregatetesting "k8s.io/component-base/featuregate/testing"
)

// test is one of the exported tests.
type test struct {
	name string
	run  func(context.Context, *testing.T, *fixture)
	// on and off are features that it needs to be so.
	on, off []featuregate.Feature
	// streams says that it is run again with lists as streams.
	streams bool
}

// simple makes a test of a function that needs nothing but a storage.
func simple(f func(context.Context, *testing.T, storage.Interface)) func(context.Context, *testing.T, *fixture) {
	return func(ctx context.Context, t *testing.T, fx *fixture) { f(ctx, t, fx) }
}

func prefixed(f func(context.Context, *testing.T, storagetesting.InterfaceWithPrefixTransformer)) func(context.Context, *testing.T, *fixture) {
	return func(ctx context.Context, t *testing.T, fx *fixture) { f(ctx, t, fx) }
}

func tests() []test {
	malformed := []featuregate.Feature{features.AllowUnsafeMalformedObjectDeletion}
	snapshots := []featuregate.Feature{features.ListFromCacheSnapshot}
	return []test{
		{name: "Create", run: func(ctx context.Context, t *testing.T, f *fixture) { storagetesting.RunTestCreate(ctx, t, f, f.valid) }},
		{name: "CreateWithTTL", run: simple(storagetesting.RunTestCreateWithTTL)},
		{name: "CreateWithKeyExist", run: simple(storagetesting.RunTestCreateWithKeyExist)},
		{name: "Get", run: simple(storagetesting.RunTestGet)},
		{name: "UnconditionalDelete", run: simple(storagetesting.RunTestUnconditionalDelete)},
		{name: "ConditionalDelete", run: simple(storagetesting.RunTestConditionalDelete)},
		{name: "DeleteWithSuggestion", run: simple(storagetesting.RunTestDeleteWithSuggestion)},
		{name: "DeleteWithSuggestionAndConflict", run: simple(storagetesting.RunTestDeleteWithSuggestionAndConflict)},
		{name: "DeleteWithConflict", run: simple(storagetesting.RunTestDeleteWithConflict)},
		{name: "DeleteWithSuggestionOfDeletedObject", run: simple(storagetesting.RunTestDeleteWithSuggestionOfDeletedObject)},
		{name: "ValidateDeletionWithSuggestion", run: simple(storagetesting.RunTestValidateDeletionWithSuggestion)},
		{name: "ValidateDeletionWithOnlySuggestionValid", run: simple(storagetesting.RunTestValidateDeletionWithOnlySuggestionValid)},
		{name: "PreconditionalDeleteWithSuggestion", run: simple(storagetesting.RunTestPreconditionalDeleteWithSuggestion)},
		{name: "PreconditionalDeleteWithOnlySuggestionPass", run: simple(storagetesting.RunTestPreconditionalDeleteWithOnlySuggestionPass)},
		{name: "DeleteWithConflictAndMissingExpectedDecodeError", on: malformed, run: func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestDeleteWithConflictAndMissingExpectedTransformOrDecodeError(ctx, t, f, f.codec.fail.Store)
		}},
		{name: "DeleteExpectedTransformError", on: malformed, run: func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestDeleteExpectedTransformOrDecodeError(ctx, t, f, f.transformer.fail.Store)
		}},
		{name: "DeleteExpectedDecodeError", on: malformed, run: func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestDeleteExpectedTransformOrDecodeError(ctx, t, f, f.codec.fail.Store)
		}},
		{name: "DeleteWithSuggestionAndMissingExpectedTransformOrDecodeError", on: malformed, run: func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestDeleteWithSuggestionAndMissingExpectedTransformOrDecodeError(ctx, t, f)
		}},
		{name: "List", streams: true, run: func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestList(ctx, t, f, f.compact, false, f.client.Kubernetes.(*storagetesting.KubernetesRecorder))
		}},
		{name: "ConsistentList", streams: true, run: func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestConsistentList(ctx, t, f, f.increase, false, true, false)
		}},
		{name: "GetListNonRecursive", run: func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestGetListNonRecursive(ctx, t, f.increase, f)
		}},
		{name: "GetListRecursivePrefix", run: simple(storagetesting.RunTestGetListRecursivePrefix)},
		{name: "ListContinuation", run: func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestListContinuation(ctx, t, f, f.calls)
		}},
		{name: "ListPaginationRareObject", off: snapshots, run: func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestListPaginationRareObject(ctx, t, f, f.calls)
		}},
		{name: "ListContinuationWithFilter", run: func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestListContinuationWithFilter(ctx, t, f, f.calls)
		}},
		{name: "ListInconsistentContinuation", run: func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestListInconsistentContinuation(ctx, t, f, f.compact)
		}},
		{name: "ListResourceVersionMatch", run: prefixed(storagetesting.RunTestListResourceVersionMatch)},
		{name: "ListPaging", run: simple(storagetesting.RunTestListPaging)},
		{name: "NamespaceScopedList", run: simple(storagetesting.RunTestNamespaceScopedList)},
		{name: "GuaranteedUpdate", run: func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestGuaranteedUpdate(ctx, t, f, f.valid)
		}},
		{name: "GuaranteedUpdateWithTTL", run: simple(storagetesting.RunTestGuaranteedUpdateWithTTL)},
		{name: "GuaranteedUpdateChecksStoredData", run: prefixed(storagetesting.RunTestGuaranteedUpdateChecksStoredData)},
		{name: "GuaranteedUpdateWithConflict", run: simple(storagetesting.RunTestGuaranteedUpdateWithConflict)},
		{name: "GuaranteedUpdateWithSuggestionAndConflict", run: simple(storagetesting.RunTestGuaranteedUpdateWithSuggestionAndConflict)},
		{name: "TransformationFailure", run: prefixed(storagetesting.RunTestTransformationFailure)},
		{name: "Stats", run: func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestStats(ctx, t, f, f.codec, f.transformer, false)
		}},
		{name: "CompactRevision", on: snapshots, run: func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestCompactRevision(ctx, t, f, f.increase, f.compact)
		}},
		{name: "KeySchema", run: simple(storagetesting.RunTestKeySchema)},

		{name: "Watch", run: simple(storagetesting.RunTestWatch)},
		{name: "ClusterScopedWatch", run: simple(storagetesting.RunTestClusterScopedWatch)},
		{name: "NamespaceScopedWatch", run: simple(storagetesting.RunTestNamespaceScopedWatch)},
		{name: "DeleteTriggerWatch", run: simple(storagetesting.RunTestDeleteTriggerWatch)},
		{name: "WatchFromZero", run: func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestWatchFromZero(ctx, t, f, f.compact)
		}},
		{name: "WatchFromNonZero", run: simple(storagetesting.RunTestWatchFromNonZero)},
		{name: "DelayedWatchDelivery", run: simple(storagetesting.RunTestDelayedWatchDelivery)},
		{name: "WatchError", run: prefixed(storagetesting.RunTestWatchError)},
		{name: "WatchContextCancel", run: simple(storagetesting.RunTestWatchContextCancel)},
		{name: "WatcherTimeout", run: simple(storagetesting.RunTestWatcherTimeout)},
		{name: "WatchDeleteEventObjectHaveLatestRV", run: simple(storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV)},
		{name: "WatchInitializationSignal", run: simple(storagetesting.RunTestWatchInitializationSignal)},
		{name: "ProgressNotify", run: func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunOptionalTestProgressNotify(ctx, t, f, f.increase)
		}},
		{name: "WatchDispatchBookmarkEvents", run: func(ctx context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestWatchDispatchBookmarkEvents(ctx, t, f, false)
		}},
		{name: "SendInitialEventsBackwardCompatibility", run: simple(storagetesting.RunSendInitialEventsBackwardCompatibility)},
		{name: "WatchSemantics", streams: true, run: simple(storagetesting.RunWatchSemantics)},
		{name: "WatchSemanticsWithConcurrentDecode", streams: true, on: []featuregate.Feature{features.ConcurrentWatchObjectDecode}, run: simple(storagetesting.RunWatchSemantics)},
		{name: "WatchSemanticInitialEventsExtended", streams: true, run: simple(storagetesting.RunWatchSemanticInitialEventsExtended)},
		{name: "WatchListMatchSingle", streams: true, run: simple(storagetesting.RunWatchListMatchSingle)},
		{name: "WatchErrorIsBlockingFurtherEvents", run: prefixed(storagetesting.RunWatchErrorIsBlockingFurtherEvents)},
	}
}

func TestStorage(t *testing.T) {
	for kind, s := range stores() {
		for _, tt := range tests() {
			t.Run(kind+"/"+tt.name, func(t *testing.T) { tt.do(t, s, false) })
			if tt.streams {
				t.Run(kind+"/"+tt.name+"/streams", func(t *testing.T) { tt.do(t, s, true) })
			}
		}
	}
}

func (tt test) do(t *testing.T, s newStore, streams bool) {
	gate := utilfeature.DefaultFeatureGate
	for _, f := range tt.on {
		featuregatetesting.SetFeatureGateDuringTest(t, gate, f, true)
	}
	for _, f := range tt.off {
		featuregatetesting.SetFeatureGateDuringTest(t, gate, f, false)
	}
	featuregatetesting.SetFeatureGateDuringTest(t, gate, features.EtcdRangeStream, streams)
	before := storagefeature.DefaultFeatureSupportChecker
	storagefeature.DefaultFeatureSupportChecker = storagefeature.NewDefaultFeatureSupportChecker()
	t.Cleanup(func() { storagefeature.DefaultFeatureSupportChecker = before })
	f := newFixture(t, s)
	tt.run(t.Context(), t, f)
	if !streams || t.Failed() {
		return
	}
	if !storagefeature.DefaultFeatureSupportChecker.Supports(storage.RangeStream) {
		t.Error("lists are not served as streams")
	}
}
