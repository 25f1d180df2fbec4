// Package typed adapts functions over one concrete type to the functions of a kind.Kind, which take client.Object.
//
//	Default: typed.Default(func(d *appsv1.Deployment) { … }),
//
// The adapted functions rely on the promise of package kind that a Kind's functions see objects of its own type only.
package typed
