package scheduler

// Fit says whether pods would fit if they came now, one after another, and where: each finds those before it in place. It changes nothing.
func (e *Engine) Fit(pods []*Pod) []Decision {
	f := e.Fork()
	out := make([]Decision, len(pods))
	for i, p := range pods {
		out[i] = f.Schedule(p)
	}
	return out
}
