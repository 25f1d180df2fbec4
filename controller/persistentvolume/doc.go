// Package persistentvolume binds PersistentVolumeClaims to PersistentVolumes, both ways, and keeps their phases.
//
//	ctl, err := persistentvolume.New(c, cache, persistentvolume.Options{})
//	...
//	err = ctl.Run(ctx)
//
// A claim gets the smallest volume that fits, unless it names one or its class waits for the first consumer: then the scheduler chooses. Claims
// that no volume fits are left to the provisioner of their class. Volumes whose claim is gone are released. Nothing is deleted or wiped here: a
// released volume is retained, or left to the driver that made it, or else it fails, with an event that says so.
package persistentvolume
