package typed

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// cast returns the zero T (a nil pointer) for a nil object, which old is on create.
func cast[T client.Object](obj client.Object) T {
	t, _ := obj.(T)
	return t
}

// Default adapts Kind.Default.
func Default[T client.Object](f func(T)) func(client.Object) {
	return func(obj client.Object) { f(cast[T](obj)) }
}

// Prepare adapts Kind.PrepareForCreate.
func Prepare[T client.Object](f func(context.Context, T)) func(context.Context, client.Object) {
	return func(ctx context.Context, obj client.Object) { f(ctx, cast[T](obj)) }
}

// PrepareUpdate adapts Kind.PrepareForUpdate and Subresource.Prepare.
func PrepareUpdate[T client.Object](f func(ctx context.Context, obj, old T)) func(context.Context, client.Object, client.Object) {
	return func(ctx context.Context, obj, old client.Object) { f(ctx, cast[T](obj), cast[T](old)) }
}

// Validate adapts Kind.Validate.
func Validate[T client.Object](f func(T) field.ErrorList) func(context.Context, client.Object) field.ErrorList {
	return func(_ context.Context, obj client.Object) field.ErrorList { return f(cast[T](obj)) }
}

// ValidateUpdate adapts Kind.ValidateUpdate and Subresource.Validate.
func ValidateUpdate[T client.Object](f func(obj, old T) field.ErrorList) func(context.Context, client.Object, client.Object) field.ErrorList {
	return func(_ context.Context, obj, old client.Object) field.ErrorList { return f(cast[T](obj), cast[T](old)) }
}

// Warnings adapts Kind.Warnings; old is nil on create.
func Warnings[T client.Object](f func(ctx context.Context, obj, old T) []string) func(context.Context, client.Object, client.Object) []string {
	return func(ctx context.Context, obj, old client.Object) []string { return f(ctx, cast[T](obj), cast[T](old)) }
}

// Row adapts Kind.Row.
func Row[T client.Object](f func(T, time.Time) []any) func(client.Object, time.Time) []any {
	return func(obj client.Object, now time.Time) []any { return f(cast[T](obj), now) }
}

// Field adapts one of Kind.Fields.
func Field[T client.Object](f func(T) string) func(client.Object) string {
	return func(obj client.Object) string { return f(cast[T](obj)) }
}

// ScaleGet adapts Scale.Get.
func ScaleGet[T client.Object](f func(T) (spec, status int32, selector string)) func(client.Object) (int32, int32, string) {
	return func(obj client.Object) (int32, int32, string) { return f(cast[T](obj)) }
}

// ScaleSet adapts Scale.Set.
func ScaleSet[T client.Object](f func(T, int32)) func(client.Object, int32) {
	return func(obj client.Object, replicas int32) { f(cast[T](obj), replicas) }
}
