// Package table has the columns and cells that the tables of many kinds share, as kubectl get prints them.
//
//	Columns: []metav1.TableColumnDefinition{table.Name(), table.Number("Ready", "…"), table.Age()},
//
// It keeps no state.
package table
