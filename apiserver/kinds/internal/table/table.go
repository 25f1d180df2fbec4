package table

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

// Name is the first column of nearly every table.
func Name() metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]}
}

// Age is the column of the time since an object was created.
func Age() metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: "Age", Type: "string", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]}
}

// Text is a column of strings.
func Text(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "string", Description: description}
}

// Number is a column of integers.
func Number(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "integer", Description: description}
}

// Bool is a column of booleans.
func Bool(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "boolean", Description: description}
}

// Wide marks a column as one that only -o wide shows.
func Wide(column metav1.TableColumnDefinition) metav1.TableColumnDefinition {
	column.Priority = 1
	return column
}

// TemplateColumns are the wide columns of kinds with a pod template and a selector.
func TemplateColumns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		Wide(Text("Containers", "Names of each container in the template.")),
		Wide(Text("Images", "Images referenced by each container in the template.")),
		Wide(Text("Selector", "Label query over pods that this object selects.")),
	}
}

// Since is the age at now of a moment: "<unknown>" when it is not set.
func Since(t metav1.Time, now time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(t.Time))
}

// Containers are the names and images of containers, each joined by commas.
func Containers(containers []corev1.Container) (names, images string) {
	n := make([]string, len(containers))
	i := make([]string, len(containers))
	for k := range containers {
		n[k], i[k] = containers[k].Name, containers[k].Image
	}
	return strings.Join(n, ","), strings.Join(i, ",")
}

// BoolPointer is "True", "False" or "<unset>".
func BoolPointer(b *bool) string {
	switch {
	case b == nil:
		return "<unset>"
	case *b:
		return "True"
	default:
		return "False"
	}
}

// Limited joins at most limit items by sep and says how many more there are; none is "<unset>" or what empty says.
func Limited(items []string, limit int, sep, empty string) string {
	if len(items) == 0 {
		return empty
	}
	if len(items) <= limit {
		return strings.Join(items, sep)
	}
	return fmt.Sprintf("%s + %d more...", strings.Join(items[:limit], sep), len(items)-limit)
}
