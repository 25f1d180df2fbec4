// Package namespacelifecycle is the admission plugin NamespaceLifecycle: objects are created only in namespaces that exist and are not
// being deleted, and the namespaces of the system are not deleted.
package namespacelifecycle
