// Package fakeruntime is a container runtime that runs nothing: it keeps sandboxes, containers and images in memory with
// the semantics of CRI, by the hundred thousand, so that whole clusters are simulated with the real kubelet. A container costs some
// hundred bytes and no goroutine; time is the injected clock's.
//
//	rt, err := fakeruntime.New(fakeruntime.Options{})
//	k, err := kubelet.New(client, cache, rt, rt, kubelet.Options{NodeName: "node-1"})
//
// Containers run until they are stopped, except init containers, which exit 0 at once, and those of Jobs (pods labelled
// batch.kubernetes.io/job-name), which exit 0 after Options.JobRunTime. A pod's annotations change that; each applies to all main containers, or
// to the one container whose name follows a dot, as in fakeruntime.keelson.dev/exit-code.app:
//
//	fakeruntime.keelson.dev/run-time     "90s"       how long containers run
//	fakeruntime.keelson.dev/exit-code    "1"         how they then exit (139 as Error, 137 with reason OOMKilled if oom is "true")
//	fakeruntime.keelson.dev/oom          "true"
//	fakeruntime.keelson.dev/start-delay  "5s"        how long starting takes
//	fakeruntime.keelson.dev/stop-delay   "5s"        how long stopping takes, if the grace period allows
//	fakeruntime.keelson.dev/fail-probe   "liveness=30s,readiness"  probes that fail, from a time after the start on
//	fakeruntime.keelson.dev/log-lines    "10"        lines really written to the container's log when it starts
//	fakeruntime.keelson.dev/cpu          "100m"      what its statistics show
//	fakeruntime.keelson.dev/memory       "64Mi"
//
// The same annotations on a container's own CRI configuration go before those of its pod.
//
// Commands are not executed: exec answers like echo, and knows true, false, hostname, cat and sh -c 'exit N'.
package fakeruntime
