// Package podstate decides what a node does with one pod. A [Machine] is given everything that is known — the pod as the
// API has it, what the container runtime reports, the results of probes, the time — and answers with actions to
// begin, the status to publish, events to record and when to ask again. It does no I/O, starts no goroutine and
// reads no clock, so the same inputs give the same decisions in production, in simulation and in tests.
//
// The caller carries actions out in any order and at any pace, and tells the machine how each ended with
// [Machine.Finish]; an action that has been handed out is not handed out again until then.
//
//	m := podstate.New()
//	d := m.Decide(podstate.Input{Now: now, Pod: pod})
//	for _, a := range d.Actions {
//		m.Finish(a, run(a), now)
//	}
//
// It does not know volumes, images or networks: those are the runner's, behind PrepareVolumes, StartContainer and
// CreateSandbox.
package podstate
