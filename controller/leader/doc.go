// Package leader elects one of several replicas of a component by a Lease.
//
// It differs from client-go's leaderelection in what losing means: the guarded
// function's context is cancelled, Run waits until the function has returned,
// and only then gives the lease up or stands for election again. So no two
// replicas that keep to their clocks ever work at a time, and losing an
// election never needs to end the process.
//
//	e, err := leader.New(c, leader.Options{Name: "widget-controller", Identity: hostname})
//	...
//	err = e.Run(ctx, func(ctx context.Context) error { return widgets.Run(ctx) })
package leader
